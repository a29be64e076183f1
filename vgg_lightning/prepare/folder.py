"""The folder of a run: created or reused, and locked by this run."""

from __future__ import annotations

from pathlib import Path

from vgg_lightning.base.errors import UserError
from vgg_lightning.prepare.run import Run
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.locate import check_space, check_writable
from vgg_lightning.run.folders import shared_run_folder
from vgg_lightning.run.lock import FolderLock
from vgg_lightning.run.parallel.rendezvous import Meeting
from vgg_lightning.training.memory import checkpoint_bytes


def make_folder(run: Run, meeting: Meeting | None) -> None:
    """Make the folder of a new run and hold it. Raises UserError, in all processes at once."""
    default_name = run.asked.default_name if run.asked else str(run.options["model"]["network"])
    name = run.options["name"] or default_name
    run.folder = shared_run_folder(run.options["trainer"]["default_root_dir"], str(name), meeting)
    if run.seat.rank == 0:
        run.fresh_folder = run.folder
    hold_folder(run, meeting)


def hold_folder(run: Run, meeting: Meeting | None) -> None:
    """Let this run alone write into its folder, if it has one already. Raises UserError, in all processes at once."""
    folder = run.folder
    if folder is None:
        return
    run.lock = FolderLock(folder)
    refusal = _refusal(run, folder) if meeting is None else meeting.share("hold", lambda: _refusal(run, folder))
    if refusal:
        error = UserError(refusal)
        error.everywhere = meeting is not None
        raise error


def _refusal(run: Run, folder: Path) -> str:
    """Take the folder, and see that there is room. Return why that cannot be, or nothing."""
    if run.seat.rank:
        return ""
    assert run.lock is not None
    file = run.options["ckpt_path"]
    try:
        check_writable(folder)
        run.lock.acquire()
        if file and read.handed_on(Path(file)) is None:
            return f"run {folder} has gone on in another process since its checkpoint was read: resume it again"
        if run.options["trainer"]["enable_checkpointing"] is not False:
            check_space(folder, checkpoint_bytes(run.model))
    except UserError as error:
        return str(error)
    return ""
