"""Which checkpoint a run goes on from: the newest valid one, and how far it is."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from vgg_lightning.base.errors import UserError
from vgg_lightning.presets import find_config
from vgg_lightning.run.checkpoints.loop_state import epochs_done
from vgg_lightning.run.checkpoints.seal import damage_of

KEPT = ("last", "last-prev", "best", "best-prev")  # where two are equally new, the first


class RunFinished(Exception):  # noqa: N818 - like StopIteration no error
    """There is nothing left to train."""


def newest_valid(run_folder: Path) -> Path | None:
    """Return last.ckpt, or if it is damaged the newest valid one, saying which are passed over."""
    last, *others = [run_folder / "checkpoints" / f"{name}.ckpt" for name in KEPT]
    others = sorted(filter(Path.is_file, others), key=lambda file: -file.stat().st_mtime_ns)
    passed_over: list[str] = []
    for file in filter(Path.is_file, [last, *others]):
        if not (damage := _damage(file)):
            if passed_over:
                print(f"resuming from {file}: {', '.join(passed_over)}", file=sys.stderr)
            return file
        passed_over.append(f"{file.name} is damaged ({damage})")
    return None


def newest_beside(file: Path) -> str:
    """Return a remark on the newest valid checkpoint in the folder of a damaged one, or an empty string."""
    others = [other for other in file.parent.glob("*.ckpt") if other != file]
    valid = (other for other in sorted(others, key=lambda other: -other.stat().st_mtime_ns) if not _damage(other))
    newest = next(valid, None)
    return f"; the newest valid one beside it is {newest}" if newest else ""


def checkpoint_to_resume(options: list[str], default: str) -> Path:
    """Return the newest valid checkpoint of the run that `vgg-lightning fit OPTIONS` would make.

    Args:
        options: of fit; configurations are paths already.
        default: the configuration if there is none among the options.

    Raises:
        UserError: if that run, the newest of its name, has no valid checkpoint.
    """
    root, name = _place(options, default)
    parent = Path(root) / "lightning_logs" / name
    folders = [folder for folder in parent.glob("version_*") if folder.name[8:].isdigit()]
    newest = max(folders, key=lambda folder: int(folder.name[8:]), default=parent)
    if file := newest_valid(newest):
        return file
    raise UserError(f"--resume: {newest} has no valid checkpoint; leave --resume out to start a new run")


def newest_run() -> Path:
    """Return the run folder that `--ckpt_path last` means: the current folder, or the newest run below it.

    Raises:
        UserError: if there is none.
    """
    if Path("checkpoints").is_dir():
        return Path()
    files = list(Path("lightning_logs").glob("*/version_*/checkpoints/*.ckpt"))
    if not files:
        raise UserError("--ckpt_path last: there is no run in ./lightning_logs; train first, with vgg-lightning fit")
    return max(files, key=lambda file: file.stat().st_mtime_ns).parent.parent


def check_unfinished(checkpoint: dict[str, Any], trainer: Any, early_stopping: int, run_folder: Path) -> None:
    """Raise RunFinished if a resumed run has nothing left to do, its report included."""
    if not (run_folder / "results.json").is_file():
        return
    epochs, steps = epochs_done(checkpoint), int(checkpoint["global_step"])
    waits = [s["wait_count"] for k, s in checkpoint.get("callbacks", {}).items() if k.startswith("EarlyStopping")]
    text = f"run {run_folder} is finished: {epochs} epochs, {steps:,} steps"
    if early_stopping and any(wait >= early_stopping for wait in waits):
        raise RunFinished(f"{text}; it was stopped early, raise --early_stopping to go on")
    if 0 <= trainer.max_steps <= steps:
        raise RunFinished(f"{text}; raise --trainer.max_steps to go on")
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= epochs:
        raise RunFinished(f"{text}; raise --trainer.max_epochs to go on")


def check_space(folder: Path, model: torch.nn.Module, hparams: dict[str, Any]) -> None:
    """Raise UserError if the disk has too little space for the checkpoints of a run."""
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    copies = (
        1 + bool(hparams["ema_decay"]) + {"adam": 2, "adamw": 2}.get(hparams["optimizer"], bool(hparams["momentum"]))
    )
    there = sum(file.stat().st_size for file in folder.glob("checkpoints/*.ckpt"))
    number = len(KEPT) + 1  # one more while it is written
    need, free = weights * copies * number - there, shutil.disk_usage(folder).free
    if need > free:
        raise UserError(
            f"{folder} lies on a full disk: need ~{need / 1e6:,.0f} MB for {number} checkpoints, "
            f"{free / 1e6:,.0f} MB free; choose another place with --trainer.default_root_dir"
        )


def check_writable(folder: Path) -> None:
    """Raise UserError if nothing can be written into a run folder."""
    probe = folder / "checkpoints" / ".probe.ckpt.part"
    try:
        probe.parent.mkdir(exist_ok=True)
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder}: {error.strerror}; copy it to a place where you may write, or "
            "start a new run elsewhere with --trainer.default_root_dir"
        ) from error


def _damage(file: Path) -> str | None:
    try:
        return damage_of(file)
    except OSError as error:
        return str(error.strerror or error)


def _place(options: list[str], default: str) -> tuple[str, str]:
    """Return the root folder and the name of the run that these options make."""
    files = [options[i + 1] for i, option in enumerate(options[:-1]) if option in ("--config", "-c")]
    found: dict[str, Any] = {}
    for file in files:
        config = yaml.safe_load(file if file.lstrip().startswith("{") else Path(file).read_text(encoding="utf-8")) or {}
        found |= {"root": (config.get("trainer") or {}).get("default_root_dir") or found.get("root")}
        found |= {"name": config.get("name") or found.get("name")}
    for key, option in (("root", "--trainer.default_root_dir"), ("name", "--name")):
        given = [options[i + 1] for i, o in enumerate(options[:-1]) if o == option]
        given += [o.partition("=")[2] for o in options if o.startswith(f"{option}=")]
        found[key] = given[-1] if given else found.get(key)
    return found["root"] or ".", found["name"] or run_name([Path(file) for file in files] or [find_config(default)])


def run_name(files: list[Path]) -> str:
    """Return the name of a run that is made from these configurations: that of the last."""
    from vgg_lightning.presets import presets

    known = {file.resolve(): name for name, file in presets().items()}
    return [known.get(file.resolve(), file.stem) for file in files][-1].replace("/", "-")
