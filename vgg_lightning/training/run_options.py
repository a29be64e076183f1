"""The rows of fit's own options and of the Trainer options that the project checks; all rows by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vgg_lightning.base.options import COUNT, SEED, Option, Range, Resumed
from vgg_lightning.data.options import OPTIONS as DATA
from vgg_lightning.training.options import OPTIONS as MODEL


def _is_share(value: Any) -> bool:
    return value >= 0 if isinstance(value, int) else 0 <= value <= 1


_SHARE = Range(_is_share, "a number of batches, or a share from 0.0 to 1.0")
_SOME = Range(lambda value: _is_share(value) and value > 0, "a number of batches from 1, or a share up to 1.0")
_ZERO_OR_MORE = Range(lambda value: value >= 0, "0 or more")

FIT: dict[str, Option] = {
    "seed_everything": Option(SEED, local=True, resumed="refused"),
    "name": Option(apart=True, resumed="refused"),
    "early_stopping": Option(Range(lambda epochs: epochs >= 0, "0 (never) or a number of epochs")),
    "checkpoint_every_n_steps": Option(),
    "checkpoint_minutes": Option(apart=True),
    "show": Option(apart=True),
    "logger": Option(apart=True, local=True),
    "test": Option(apart=True),
    "ckpt_path": Option(launch=True),
    "resume": Option(launch=True, apart=True),
}
TRAINER: dict[str, Option] = {
    "accelerator": Option(local=True),
    "strategy": Option(),
    "devices": Option(local=True),
    "num_nodes": Option(COUNT),
    "precision": Option(resumed="refused"),
    "logger": Option(),
    "callbacks": Option(),
    "fast_dev_run": Option(_ZERO_OR_MORE),
    "max_epochs": Option(
        Range(lambda value: value >= 1 or value == -1, "1 or more, or -1 with", other="trainer.max_steps")
    ),
    "min_epochs": Option(_ZERO_OR_MORE),
    "max_steps": Option(Range(lambda value: value >= 1 or value == -1, "1 or more, or -1 for no limit")),
    "min_steps": Option(_ZERO_OR_MORE),
    "max_time": Option(),
    "limit_train_batches": Option(_SOME),
    "limit_val_batches": Option(_SHARE),
    "limit_test_batches": Option(_SOME),
    "limit_predict_batches": Option(_SOME),
    "overfit_batches": Option(_SHARE),
    "val_check_interval": Option(_SOME),
    "check_val_every_n_epoch": Option(COUNT),
    "num_sanity_val_steps": Option(Range(lambda value: value >= -1, "0 or more, or -1 for all")),
    "log_every_n_steps": Option(_ZERO_OR_MORE, local=True),
    "enable_checkpointing": Option(),
    "enable_progress_bar": Option(local=True),
    "enable_model_summary": Option(),
    "accumulate_grad_batches": Option(COUNT),
    "gradient_clip_val": Option(Range(lambda value: value > 0, "a positive number")),
    "gradient_clip_algorithm": Option(choices=("norm", "value")),
    "deterministic": Option(),
    "benchmark": Option(),
    "inference_mode": Option(),
    "use_distributed_sampler": Option(idle="the data module shares its batches among the processes itself"),
    "profiler": Option(choices=("simple", "advanced", "pytorch")),
    "detect_anomaly": Option(),
    "barebones": Option(Range(lambda value: not value, "false: a run has checkpoints, loggers and callbacks")),
    "plugins": Option(),
    "sync_batchnorm": Option(),
    "reload_dataloaders_every_n_epochs": Option(_ZERO_OR_MORE),
    "default_root_dir": Option(place=True, local=True, resumed="ignored"),
    "enable_autolog_hparams": Option(),
    "model_registry": Option(idle="checkpoints stay in the run folder"),
}
GROUPS: dict[str, dict[str, Option]] = {"model": MODEL, "data": DATA, "trainer": TRAINER, "fit": FIT}
OBEYED_INSTEAD = {"seed_everything": "data.seed"}  # what a resumed run can change instead of a refused option
# Options that another one sets on the command line, with that one.
LINKED = {f"{group}.{name}": row.follows for group, rows in GROUPS.items() for name, row in rows.items() if row.follows}


def row(name: str) -> Option:
    """Return the row of an option as the command line names it, such as "model.lr"; an empty one if it has none."""
    group, dot, own = name.partition(".")
    return GROUPS[group].get(own, Option()) if dot else FIT.get(name, Option())


def places(group: str) -> list[str]:
    """Return the options of a group that are paths on this machine."""
    return [name for name, row in GROUPS[group].items() if row.place]


def left_out_of_presets(group: str) -> list[str]:
    """Return the options of a group that a preset leaves out: of a machine, or set by another option."""
    return [name for name, row in GROUPS[group].items() if row.local or row.follows]


def all_rows() -> Iterator[tuple[str, str, Option]]:
    """Yield group, name and row of every option."""
    for group, rows in GROUPS.items():
        for name, row in rows.items():
            yield group, name, row


def resumed_as(kind: Resumed) -> list[str]:
    """Return the options that a resumed run treats so, as one types them after the two dashes."""
    rows = [entry for entry in all_rows() if entry[2].resumed == kind and not (entry[2].launch or entry[2].follows)]
    return [name if group == "fit" else f"{group}.{name}" for group, name, _ in rows]


def equal_on_all(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that must be equal on all processes of a run."""
    groups = {
        group: {
            name: value for name, value in dict(config[group]).items() if not GROUPS[group].get(name, Option()).apart
        }
        for group in ("model", "data")
    }
    own = {name: config.get(name) for name, row in FIT.items() if not row.apart}
    return {**groups, **own, **{name: config["trainer"][name] for name in ("max_epochs", "precision")}}
