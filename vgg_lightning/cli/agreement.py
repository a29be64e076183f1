"""Options and a checkpoint that contradict each other are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vgg_lightning.base.errors import UserError
from vgg_lightning.classifier import Classifier
from vgg_lightning.cli.options import GROUPS
from vgg_lightning.loading.load import check_shapes, data_options, model_options, read_checkpoint
from vgg_lightning.run.checkpoints.locate import check_unfinished
from vgg_lightning.run.folders import run_folder_of


def agree(verb: str, config: Any) -> int | None:
    """Hold the options of a verb against those in its checkpoint.

    Args:
        verb: "fit", "validate", "test" or "predict".
        config: its options, with a `ckpt_path`.

    Returns:
        The step at which a run goes on; None if the verb is not fit.

    Raises:
        UserError: if an option contradicts the checkpoint, or the checkpoint cannot be used.
        RunFinished: if the run has nothing left to do.
    """
    file = Path(config.ckpt_path)
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file, Classifier)
    saved = {"model": model_options(checkpoint, Classifier), "data": data_options(checkpoint)}
    for group, has in saved.items():
        for name, row in GROUPS[group].items():
            if name not in has or not (row.structure or (row.fixed and verb == "fit")):
                continue
            asked = config[group][name]
            if asked is not None and asked != has[name]:
                option = row.follows or f"{group}.{name}"
                raise UserError(
                    f"--{option} {asked} contradicts the checkpoint, which has {has[name]}: leave the option out"
                )
    return _step(checkpoint, config) if verb == "fit" else None


def _step(checkpoint: dict[str, Any], config: Any) -> int:
    try:
        step = int(checkpoint["global_step"])
        if run := run_folder_of(Path(config.ckpt_path)):
            check_unfinished(checkpoint, config.trainer, config.early_stopping, run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{config.ckpt_path} is refused: it does not say how far its run was") from error
    return step
