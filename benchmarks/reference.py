"""Make the reference run that comes with the project: `python -m benchmarks.reference`, or `make reference`.

It is a run of the preset quick, with four times its epochs and photographs in mind (docs/images.md), cut down to what
reusing it needs, and without anything of the machine that made it. `python -m benchmarks.reference RUN` takes a
finished run in place of training one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from PIL import Image

from vgg_lightning.loading.load import read_checkpoint
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "lightning_logs" / "reference" / "version_0"
SHIPPED = ROOT / "vgg_lightning" / "reference"  # what an installed package brings along; git stores equal files once
RECIPE = (
    *("--trainer.precision", "32-true"),  # the same on every processor
    *("--data.augment", "[flip,photo:0.35]", "--trainer.max_epochs", "20"),
)
GREYS = 24  # of the small images
KEPT = {
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "class_names", "hparams_name"),
    *("datamodule_hparams_name", "epoch", "global_step", "pytorch-lightning_version"),
}


def main(args: list[str]) -> None:
    """Take the run that is named, or train one, and put what is kept of it in place."""
    if args:
        cut_down(Path(args[0]))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vgg_lightning", "fit", "--name", "reference", "--show", "all"]
        command += RECIPE
        subprocess.run(command, cwd=folder, check=True)
        cut_down(Path(folder) / "lightning_logs" / "reference" / "version_0")


def cut_down(run: Path) -> None:
    """Copy what reusing a run needs."""
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for name in ("hparams.yaml", "metrics.csv"):
        shutil.copy(run / name, TARGET / name)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["name"], config["trainer"]["default_root_dir"] = "reference", None
    (TARGET / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    for i, events in enumerate(sorted(run.rglob("events.out.tfevents.*"))):  # those of train, val and test too
        stamp = events.name.split(".")[3]
        target = TARGET / events.parent.relative_to(run) / f"events.out.tfevents.{stamp}.reference.{i}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(events, target)
    copy_projector(run)
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    best = {key: value for key, value in checkpoint.items() if key in KEPT}
    VerifiedCheckpointIO().save_checkpoint(best, TARGET / "checkpoints" / "best.ckpt")
    shutil.copyfile(run / "results.json", TARGET / "results.json")  # newer than the checkpoint: the run is finished
    ship()
    print(f"reference run: {TARGET}")


def ship() -> None:
    """Copy weights and results into the package."""
    SHIPPED.mkdir(exist_ok=True)
    shutil.copyfile(TARGET / "checkpoints" / "best.ckpt", SHIPPED / "best.ckpt")
    results = json.loads((TARGET / "results.json").read_text(encoding="utf-8"))
    text = json.dumps({**results, "checkpoint": "best.ckpt"}, indent=2) + "\n"
    (SHIPPED / "results.json").write_text(text, encoding="utf-8")


def copy_projector(run: Path) -> None:
    """Copy the features and their small images, which TensorBoard stores in three times the space they need."""
    config = run / "projector_config.pbtxt"
    if not config.is_file():
        return
    shutil.copy(config, TARGET)
    for features in run.glob("[0-9]*/features"):
        target = TARGET / features.relative_to(run)
        shutil.copytree(features, target)
        with Image.open(features / "sprite.png") as sprite:
            sprite.convert("L").quantize(GREYS).save(target / "sprite.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
