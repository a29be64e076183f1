"""A classifier as a program that runs without this package: uint8 images in, logits and probabilities out."""

from __future__ import annotations

import copy
import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import replace
from vgg_lightning.data.transforms import NATIVE_SIZE
from vgg_lightning.training.tta import ViewsName, average_views

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier

LARGEST_DIFFERENCE = 1e-4  # that an exported model may have from the classifier
SAMPLES = 32  # images on which that is checked
CARD = "card.json"  # the name of the card in a torch.export archive


class PictureModel(nn.Module):
    """Preprocessing, network, views of test-time augmentation and softmax as one module.

    Its answers are those of `Classifier.predict`.

    Args:
        classifier: whose network is copied.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.preprocess = copy.deepcopy(classifier.preprocess)
        self.network = copy.deepcopy(classifier.network).cpu().to(memory_format=torch.contiguous_format)
        self.tta: ViewsName = classifier.hparams["tta"]
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map uint8 images (N, 1, 28, 28), light on black, to logits and probabilities, both (N, num_classes)."""
        x = self.preprocess(images)
        logits = average_views(self.tta, self.network, x, self.network(x))
        return logits, logits.softmax(dim=1)


def write(classifier: Classifier, card: dict[str, Any], file: Path) -> list[Path]:
    """Write a torch.export archive, which `torch.export.load` opens, with the card in it as card.json."""
    model = PictureModel(classifier)
    program = to_program(model)
    buffer = io.BytesIO()  # a file's own name would be written into the archive
    torch.export.save(program, buffer, extra_files={CARD: json.dumps(card, indent=2)})
    again = torch.export.load(io.BytesIO(buffer.getvalue())).module()
    check_same(model, lambda images: [output.detach() for output in again(images)], file)
    replace(file, lambda part: part.write_bytes(buffer.getvalue()))
    return [file]


def to_program(model: PictureModel) -> torch.export.ExportedProgram:
    """Return the graph of a model, for any number of images."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (example(2),), dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names files of this machine
    return program


def example(count: int) -> Tensor:
    """Return `count` images (count, 1, 28, 28) of all kinds of contrast, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (count, 1, NATIVE_SIZE, NATIVE_SIZE), generator=generator)
    coarse = torch.randint(0, 256, (count, 1, NATIVE_SIZE // 4, NATIVE_SIZE // 4), generator=generator)
    shapes = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    share = torch.linspace(0, 1, count)[:, None, None, None]
    return (noise * share + shapes * (1 - share)).to(torch.uint8)


def check_same(model: PictureModel, run: Any, file: Path) -> None:
    """Raise UserError unless `run` answers as `model` does, on batches of 1 and of some.

    Probabilities may differ by 1e-4; logits too, or by that share of the largest one if that is above 1.

    Args:
        model: what was exported.
        run: maps images to logits and probabilities, by what was exported.
        file: that would be written.
    """
    for images in (example(SAMPLES), example(1)):
        with torch.no_grad():
            expected = model(images)
        for name, ours, theirs in zip(("logits", "probabilities"), expected, run(images), strict=True):
            allowed = LARGEST_DIFFERENCE * max(1.0, float(ours.abs().max()))
            difference = float((ours - torch.as_tensor(theirs)).abs().max())
            if not difference <= allowed:
                raise UserError(
                    f"{file} is not written: its {name} differ by {difference:.2g} from the classifier's, "
                    f"more than {allowed:.2g}; export it as safetensors"
                )
