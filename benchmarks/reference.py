"""Train the reference run that comes with the project: `python -m benchmarks.reference`, or `make reference`.

It is a run of the preset quick like any other, cut down to what reusing it needs, and without anything of the
machine that made it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from vgg_lightning.checkpoints.load import read_checkpoint
from vgg_lightning.checkpoints.write import VerifiedCheckpointIO

TARGET = Path(__file__).parents[1] / "lightning_logs" / "reference" / "version_0"
KEPT = {
    *("state_dict", "hyper_parameters", "datamodule_hyper_parameters", "class_names", "hparams_name"),
    *("datamodule_hparams_name", "epoch", "global_step", "pytorch-lightning_version"),
}


def main() -> None:
    """Train, cut down, and put in place."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vgg_lightning", "fit", "--name", "reference"]
        subprocess.run(command, cwd=folder, check=True)
        run = Path(folder) / "lightning_logs" / "reference" / "version_0"
        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir(parents=True)
        for name in ("config.yaml", "hparams.yaml", "metrics.csv", "results.json"):
            shutil.copy(run / name, TARGET / name)
        for i, events in enumerate(sorted(run.glob("events.out.tfevents.*"))):
            stamp = events.name.split(".")[3]
            shutil.copy(events, TARGET / f"events.out.tfevents.{stamp}.reference.{i}")
        checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
        best = {key: value for key, value in checkpoint.items() if key in KEPT}
        VerifiedCheckpointIO().save_checkpoint(best, TARGET / "checkpoints" / "best.ckpt")
    print(f"reference run: {TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET}")


if __name__ == "__main__":
    main()
