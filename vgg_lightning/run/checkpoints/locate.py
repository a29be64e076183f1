"""Finds the checkpoint file for a file, a folder, a run folder or "last", and the one from which a run resumes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.files import check_place
from vgg_lightning.base.text import count, say
from vgg_lightning.run.checkpoints.read import damage
from vgg_lightning.run.lightning_private import epochs_done

SHIPPED: dict[str, Path] = {}  # names of the checkpoints that a project brings along; what lies at a path goes first
KEPT = ("last", "last-prev", "best", "best-prev")  # where two are equally new, the first


class RunFinished(Exception):  # noqa: N818 - like StopIteration no error
    """There is nothing left to train."""


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """Return the checkpoint file that `path` means.

    Args:
        path: a checkpoint file, a run folder such as `lightning_logs/quick/version_0`, or a name in `SHIPPED`.
        prefer: "best" or "last", which of a run folder's two.

    Raises:
        UserError: if there is none; the message names what is near.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        if str(path) in SHIPPED:
            return SHIPPED[str(path)]
        raise UserError(f"checkpoint {path} does not exist{nearest(str(path), SHIPPED) or _found_near(path)}")
    names = [prefer, *({"best", "last"} - {prefer})]
    candidates = [folder / f"{name}.ckpt" for name in names for folder in (path / "checkpoints", path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{path} is a folder without checkpoints/best.ckpt{_found_near(path / 'x')}")


def newest_valid(run_folder: Path) -> Path | None:
    """Return last.ckpt, or if it is damaged the newest valid one, saying which are passed over."""
    last, *others = [run_folder / "checkpoints" / f"{name}.ckpt" for name in KEPT]
    others = sorted(filter(Path.is_file, others), key=lambda file: -file.stat().st_mtime_ns)
    passed_over: list[str] = []
    for file in filter(Path.is_file, [last, *others]):
        if not (damage := _damage(file)):
            if passed_over:
                say(f"resuming from {file}: {', '.join(passed_over)}", sys.stderr)
            return file
        passed_over.append(f"{file.name} is damaged ({damage})")
    return None


def meant_by(path: str, resumes: bool) -> Path:
    """Return the checkpoint file that `--ckpt_path` means.

    Args:
        path: a file, a run folder, a folder with checkpoints, or "last": the newest run below the current folder.
        resumes: a run resumes from it: the newest valid file counts, not the best one.

    Raises:
        UserError: if there is none.
    """
    if path == "last":
        folder = newest_run()
        path = str(folder) if resumes else str(folder / "checkpoints" / "last.ckpt")
    newest = newest_valid(Path(path)) if resumes else None
    return newest or find_checkpoint(path, prefer="last" if resumes else "best")


def newest_of(root: str | Path, name: str) -> Path:
    """Return the newest valid checkpoint of the newest run with a name: what `--resume` means.

    Args:
        root: folder of `lightning_logs`.
        name: of the run.

    Raises:
        UserError: if the newest run of that name has no valid checkpoint.
    """
    parent = Path(root) / "lightning_logs" / name
    folders = [folder for folder in parent.glob("version_*") if folder.name[8:].isdigit()]
    newest = max(folders, key=lambda folder: int(folder.name[8:]), default=parent)
    if file := newest_valid(newest):
        return file
    resume = option("resume")
    raise UserError(f"{resume}: {newest} has no valid checkpoint; leave {resume} out to start a new run")


def newest_unfinished(root: str | Path) -> Path | None:
    """Return the run folder below `root` that trained last and has not written its results since, or None.

    Args:
        root: folder of `lightning_logs`.
    """
    ages: dict[Path, int] = {}
    for file in filter(Path.is_file, (Path(root) / "lightning_logs").glob("*/version_*/checkpoints/*.ckpt")):
        run = file.parent.parent
        ages[run] = max(ages.get(run, 0), file.stat().st_mtime_ns)
    unfinished = [run for run, age in ages.items() if not _written_after(run / "results.json", age)]
    return max(unfinished, key=ages.__getitem__, default=None)


def _written_after(file: Path, time_ns: int) -> bool:
    return file.is_file() and file.stat().st_mtime_ns >= time_ns


def newest_beside(file: Path) -> str:
    """Return a remark on the newest valid checkpoint in the folder of a damaged one, or an empty string."""
    others = [other for other in file.parent.glob("*.ckpt") if other != file and other.is_file()]
    valid = (other for other in sorted(others, key=lambda other: -other.stat().st_mtime_ns) if not _damage(other))
    newest = next(valid, None)
    return f"; the newest valid one beside it is {newest}" if newest else ""


def newest_run() -> Path:
    """Return the run folder that `--ckpt_path last` means: the current folder, or the newest run below it.

    Raises:
        UserError: if there is none.
    """
    if Path("checkpoints").is_dir():
        return Path()
    files = list(filter(Path.is_file, Path("lightning_logs").glob("*/version_*/checkpoints/*.ckpt")))
    if not files:
        raise UserError(
            f"{option('ckpt_path')} last: there is no run in ./lightning_logs; train first, with vgg-lightning fit"
        )
    return max(files, key=lambda file: file.stat().st_mtime_ns).parent.parent


def check_unfinished(checkpoint: dict[str, Any], trainer: Any, early_stopping: int, run_folder: Path) -> None:
    """Raise RunFinished if a resumed run has nothing left to do, its report included."""
    if not (run_folder / "results.json").is_file():
        return
    epochs, steps = epochs_done(checkpoint), int(checkpoint["global_step"])
    waits = [s["wait_count"] for k, s in checkpoint.get("callbacks", {}).items() if k.startswith("EarlyStopping")]
    ends = {
        "early_stopping": bool(early_stopping) and any(wait >= early_stopping for wait in waits),
        "trainer.max_steps": 0 <= trainer.max_steps <= steps,
        "trainer.max_epochs": trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs,
    }
    if reached := [option(name) for name, end in ends.items() if end]:
        done = f"{count(epochs, 'epoch')}, {count(steps, 'step')}"
        raise RunFinished(f"run {run_folder} is finished: {done}; raise {' and '.join(reached)} to resume")


def check_space(folder: Path, size: int) -> None:
    """Raise UserError if the disk has too little space for the checkpoints of a run.

    Args:
        folder: of the run.
        size: bytes of a checkpoint.
    """
    there = sum(file.lstat().st_size for file in folder.glob("checkpoints/*.ckpt"))
    number = len(KEPT) + 1  # one more while it is written
    need, free = size * number - there, shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"{folder} lies on a full disk: need ~{need / 1e6:,.0f} MB for {number} checkpoints, "
            f"{free / 1e6:,.0f} MB free; choose another place with {option('trainer.default_root_dir')}"
        )


def check_writable(folder: Path) -> None:
    """Raise UserError if nothing can be written into a run folder."""
    try:
        check_place(folder / "checkpoints")
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder}: {error.strerror}; copy it to a place where you may write, or "
            f"start a new run elsewhere with {option('trainer.default_root_dir')}"
        ) from error


def _found_near(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    patterns = ("*.ckpt", "checkpoints/*.ckpt", "*/checkpoints/*.ckpt", "*/*/checkpoints/*.ckpt")
    near = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
    near.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return f": near it are {', '.join(map(str, near[:3]))}" if near else ": train first, with vgg-lightning fit"


def _damage(file: Path) -> str | None:
    try:
        return damage(file)
    except OSError as error:
        return str(error.strerror or error)
