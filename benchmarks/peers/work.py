"""The work that is measured: the networks of the sources and of `quick` at their sizes, read from the presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from vgg_lightning.data.files import default_data_dir, load
from vgg_lightning.networks import build_network, network_options
from vgg_lightning.networks.tracing import trace_layers
from vgg_lightning.presets import presets
from vgg_lightning.run.precision import AUTO, DEFAULT, chosen

DATA_DIR = default_data_dir()  # laid out as torchvision lays it out, so that all contenders read the same files


@dataclass(frozen=True)
class Work:
    """A network and how it is trained.

    Args:
        preset: of vgg-lightning.
        changes: options that differ from the preset's, such as {"model.ratio": 1}.
    """

    preset: str
    changes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, dict[str, Any]]:
        """The options of model and data."""
        config = yaml.safe_load(presets()[self.preset].read_text(encoding="utf-8"))
        for name, value in self.changes.items():
            group, option = name.split(".", 1)
            config.setdefault(group, {})[option] = value
        return {"model": dict(config["model"]), "data": {"image_size": 32, "batch_size": 128, **config["data"]}}

    @property
    def arguments(self) -> tuple[str, ...]:
        """What to give `vgg-lightning fit`."""
        changes = [f"--{name}={value}" for name, value in self.changes.items()]
        return ("--config", self.preset, *changes)

    @property
    def precision(self) -> str:
        """In which this project trains here: what the preset or the changes say, settled as a run settles it."""
        config = yaml.safe_load(presets()[self.preset].read_text(encoding="utf-8"))
        asked = self.changes.get("trainer.precision", (config.get("trainer") or {}).get("precision", DEFAULT))
        return chosen(not torch.cuda.is_available()) if asked == AUTO else str(asked)

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        return int(self.options["data"]["image_size"])

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""
        return int(self.options["data"]["batch_size"])

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.options["model"].get("lr", 0.05))

    @property
    def is_vgg(self) -> bool:
        """Whether the network is one of the paper's VGGs."""
        return str(self.options["model"]["network"]).startswith("vgg")

    def network(self) -> nn.Module:
        """Return a new network, with torch's initial weights."""
        model = dict(self.options["model"])
        name = model.pop("network")
        known = network_options(name)
        return build_network(name, **{"image_size": self.image_size} | {k: v for k, v in model.items() if k in known})

    def training_flops(self) -> int:
        """Return the floating-point operations of a training step for one image, as `summary` counts them."""
        layers = trace_layers(self.network().to("meta"), (1, self.image_size, self.image_size))
        return 2 * sum(layer.training_macs for layer in layers)

    def images(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return uint8 images (N, 1, 28, 28) and labels (N,) of the official training or test set."""
        return load(DATA_DIR, "train" if train else "test")


def only_resized(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return `changes` with those that make the images what the peers' loaders make: scaled to 0..1, all 60,000."""
    return {"data.normalize": False, "data.val_size": 0, **(changes or {})}


WORKS: dict[str, Work] = {
    "vgg11-r4-224": Work("sources/s4-224"),
    "vgg11-r4-96": Work("sources/s4-96"),
    "vgg11-r16-224": Work("sources/s0"),
    "quick": Work("quick"),
    "quick-r1": Work("quick", {"model.ratio": 1}),
    "quick-float32": Work("quick", {"trainer.precision": "32-true"}),
    "speedrun": Work("speedrun"),
    "speedrun94": Work("speedrun94"),
    **{
        f"{name}-bf16": Work(preset, {"trainer.precision": "bf16-mixed"})
        for name, preset in (
            *(("vgg11-r4-224", "sources/s4-224"), ("vgg11-r4-96", "sources/s4-96"), ("vgg11-r16-224", "sources/s0")),
            *(("resnet18-28", "sources/s2-resnet"), ("googlenet-96", "sources/s2-googlenet")),
            *(("densenet-96", "sources/s2-densenet"), ("lenet-28", "sources/s2-lenet")),
        )
    },
    "vgg11-r4-32": Work("sources/s4-96", {"data.image_size": 32}),
    "vgg11-r1-32": Work("sources/s4-96", {"data.image_size": 32, "model.ratio": 1}),
    "vgg11-r1-224-b8": Work("sources/s2-vgg", {"data.batch_size": 8}),
    "lenet-28": Work("sources/s2-lenet"),
    "resnet18-28": Work("sources/s2-resnet"),
    "googlenet-96": Work("sources/s2-googlenet"),
    "densenet-96": Work("sources/s2-densenet"),
    "alexnet-224": Work("sources/s2-alexnet"),
    "nin-224": Work("sources/s2-nin"),
}
