"""The data of a run: there before anything is written, small enough for the memory, and enough for its limits."""

from __future__ import annotations

import math

from vgg_lightning.base.machine import ROOM_TO_KEEP, free_memory, keep_freed_memory
from vgg_lightning.data.datamodule import Split
from vgg_lightning.prepare.run import Run
from vgg_lightning.run.parallel.devices import processes
from vgg_lightning.training.limits import check_batches, check_begun_epoch
from vgg_lightning.training.memory import check_training_fits


def ready_data(run: Run, record: bool) -> None:
    """Have the data before anything is written: without data there is no run. Raises UserError if memory is short."""
    trainer = run.options["trainer"]
    if run.stage != "fit":
        if processes(trainer, run.seat) > 1:
            run.data.prepare_data()  # now, to compare the data before anything runs
        return
    run.data.prepare_data()
    run.data.setup("fit")
    if not record:
        return
    batch_size = min(run.data.hparams["batch_size"], len(run.data.images("train")[1]))
    needed = check_training_fits(run.model.hparams, batch_size, str(trainer["precision"]))
    if 0 < ROOM_TO_KEEP * needed < free_memory():
        keep_freed_memory()


def check_limits(run: Run, begun: int) -> None:
    """Raise UserError for limits that leave no batch, before the training that would end with them.

    Args:
        run: with its model and data.
        begun: batches that are done of the epoch within which the run goes on.
    """
    trainer, size = run.options["trainer"], run.data.hparams["batch_size"]
    if trainer["fast_dev_run"] or trainer["overfit_batches"]:
        return
    if run.stage != "fit":
        split = {"validate": "val"}.get(run.stage, run.stage)
        if _is_part(trainer[f"limit_{split}_batches"]):
            if run.data.predict_path is None:
                run.data.prepare_data()
            run.data.setup(run.stage)
            check_batches(trainer, {split: len(getattr(run.data, f"{split}_dataloader")())})
        return
    splits: list[Split] = ["train", "val"]
    if run.options["test"] and _is_part(trainer["limit_test_batches"]):
        run.data.setup("test")
        splits.append("test")
    batches: dict[str, int] = {split: math.ceil(len(run.data.images(split)[1]) / size) for split in splits}
    check_batches(trainer, batches)
    check_begun_epoch(trainer, begun, batches["train"])


def _is_part(limit: float | None) -> bool:
    """Return whether a limit of batches is a share that leaves some out, and may leave out all of few."""
    return isinstance(limit, float) and limit < 1
