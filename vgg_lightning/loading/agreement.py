"""Options and a checkpoint that contradict each other are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L

from vgg_lightning.base.errors import UserError
from vgg_lightning.loading.load import check_shapes, data_options, model_options, read_checkpoint
from vgg_lightning.run.checkpoints.locate import check_unfinished
from vgg_lightning.run.folders import run_folder_of

# Options that a checkpoint's weights depend on: the command line may not contradict them.
STRUCTURE = {
    "model": (
        *("network", "ratio", "hidden_units", "batch_norm", "norm_after_relu", "head", "poolings"),
        *("in_channels", "num_classes", "image_size"),
    ),
    "data": ("image_size", "normalize", "in_channels", "mean", "std", "classes"),
}
# Options that a run cannot change on its way either.
RESUMED: dict[str, tuple[str, ...]] = {"model": ("optimizer",), "data": ("batch_size", "val_size", "dataset")}


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
    file = Path(config["ckpt_path"])
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file, owner)
    saved = {"model": model_options(checkpoint, owner), "data": data_options(checkpoint)}
    for group, names in STRUCTURE.items():
        names += RESUMED[group] if verb == "fit" else ()
        for name in [name for name in names if name in saved[group]]:
            asked, has = config[group][name], saved[group][name]
            if asked is not None and asked != has:
                option = {"image_size": "data.image_size"}.get(name, f"{group}.{name}")  # which sets the model's
                raise UserError(f"--{option} {asked} contradicts the checkpoint, which has {has}: leave the option out")
    return _step(checkpoint, config) if verb == "fit" else None


def _step(checkpoint: dict[str, Any], config: Mapping[str, Any]) -> int:
    try:
        step = int(checkpoint["global_step"])
        if run := run_folder_of(Path(config["ckpt_path"])):
            check_unfinished(checkpoint, SimpleNamespace(**config["trainer"]), config["early_stopping"], run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{config['ckpt_path']} is refused: it does not say how far its run was") from error
    return step
