"""Options and a checkpoint that contradict each other are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.loading.opened import open_checkpoint
from vgg_lightning.run.checkpoints.locate import check_unfinished
from vgg_lightning.run.folders import run_folder_of
from vgg_lightning.training.run_options import GROUPS


def agree(verb: str, config: Mapping[str, Any], owner: type[L.LightningModule]) -> int | None:
    """Hold the options of a verb against those in its checkpoint.

    Args:
        verb: "fit", "validate", "test" or "predict".
        config: its options by name, the groups "model", "data" and "trainer" as tables, with a `ckpt_path`.
        owner: the class of the model.

    Returns:
        The step at which a run goes on; None if the verb is not fit.

    Raises:
        UserError: if an option contradicts the checkpoint, or the checkpoint cannot be used.
        RunFinished: if the run has nothing left to do.
    """
    opened = open_checkpoint(config["ckpt_path"], owner, hand_on=True)
    saved = {"model": opened.model_options, "data": opened.data_options}
    for group, has in saved.items():
        for name, row in GROUPS[group].items():
            if name not in has or not (row.structure or (row.fixed and verb == "fit")):
                continue
            asked = config[group][name]
            if asked is not None and asked != has[name]:
                place = option(row.follows or f"{group}.{name}")
                raise UserError(
                    f"{place} {asked} contradicts the checkpoint, which has {has[name]}: leave the option out"
                )
    return _step(opened.checkpoint, config) if verb == "fit" else None


def _step(checkpoint: dict[str, Any], config: Mapping[str, Any]) -> int:
    try:
        step = int(checkpoint["global_step"])
        if run := run_folder_of(Path(config["ckpt_path"])):
            check_unfinished(checkpoint, SimpleNamespace(**config["trainer"]), config["early_stopping"], run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{config['ckpt_path']} is refused: it does not say how far its run was") from error
    return step
