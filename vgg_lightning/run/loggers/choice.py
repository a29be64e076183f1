"""The loggers of a run by name: TensorBoard, Weights & Biases, MLflow; metrics.csv is always beside them.

The run in W&B or MLflow is found again when the run is resumed: its identifier lies in the run folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.files import read_regular, write_whole
from vgg_lightning.base.process import seat
from vgg_lightning.base.progress import say
from vgg_lightning.base.text import install_line, program
from vgg_lightning.run.loggers.boards import takes_images
from vgg_lightning.run.loggers.csv import RunCSV
from vgg_lightning.run.loggers.tensorboard import RunTensorBoard

IDS = "loggers.json"  # in a run folder: logger -> identifier of its run
ONLY_TENSORBOARD = "graph, curves, projector, histograms and text"


def chosen(names: str | Sequence[str] | None) -> list[str]:
    """Return the names of the loggers that `--logger` asks for.

    Args:
        names: one or several, as a list or with commas between them; None is TensorBoard alone.

    Raises:
        UserError: if one is unknown, or its package is not installed.
    """
    parts = names.split(",") if isinstance(names, str) else list(names or ["tensorboard"])
    found = list(dict.fromkeys(str(part).strip() for part in parts))
    for name in found:
        if name not in LOGGERS:
            near = nearest(name, LOGGERS)
            raise UserError(f"{option('logger')} {name[:40]} is unknown{near}: it takes {', '.join(LOGGERS)}")
        if name != "tensorboard" and importlib.util.find_spec(name) is None:
            raise UserError(f"{option('logger')} {name} needs its package: {install_line(name)}")
    return found


def run_loggers(
    run_folder: Path,
    step: int | None,
    options: Mapping[str, Any] | None = None,
    names: str | Sequence[str] | None = None,
    given: Sequence[Logger] = (),
) -> list[Logger]:
    """Return the loggers of a run, metrics.csv among them.

    Args:
        run_folder: of the run.
        step: at which the run goes on, or None for a new one.
        options: of the run beside the hyperparameters of model and data.
        names: of the loggers, as `chosen` takes them.
        given: the loggers themselves, in place of names.

    Raises:
        UserError: if a logger cannot begin, as without an account.
    """
    run_folder = run_folder.absolute()
    found = list(given) or [LOGGERS[name](run_folder, step, dict(options or {})) for name in chosen(names)]
    if step is not None and any(not isinstance(logger, RunTensorBoard) for logger in found):
        say("note: a logger other than TensorBoard keeps what was logged after the checkpoint: those steps come twice")
    if not any(isinstance(logger, RunCSV) for logger in found):
        found.append(RunCSV(run_folder, step))
    return found


loggers = run_loggers  # its name when there was no choice


def missing_in(found: Sequence[Logger]) -> str:
    """Return what of a run none of its loggers can show, in one line, or nothing."""
    others = [logger for logger in found if not isinstance(logger, RunCSV)]
    if not others or any(isinstance(logger, TensorBoardLogger) for logger in others):
        return ""
    what = ONLY_TENSORBOARD if any(map(takes_images, others)) else f"images, {ONLY_TENSORBOARD}"
    return f"{' and '.join(type(logger).__name__ for logger in others)} does not show {what}: TensorBoard does"


def _tensorboard(run_folder: Path, step: int | None, options: dict[str, Any]) -> Logger:
    place = {"save_dir": run_folder.parent.parent, "name": run_folder.parent.name, "version": run_folder.name}
    return RunTensorBoard(step, options, **place)


class RunWandb(WandbLogger):
    """WandbLogger that goes on with the run of the launches before, and says where to look.

    Args:
        run_folder: of the run, where W&B keeps its files too.
        options: of the run beside the hyperparameters of model and data.
    """

    def __init__(self, run_folder: Path, options: dict[str, Any]) -> None:
        self.options = options
        name = f"{run_folder.parent.name}/{run_folder.name}"
        run_id = _kept(run_folder, "wandb", lambda: uuid.uuid4().hex[:12])
        super().__init__(name=name, save_dir=run_folder, id=run_id, settings={"quiet": True})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send the hyperparameters, with the options of the run."""
        super().log_hyperparams({**dict(params), **self.options})

    @property
    def next_command(self) -> str:
        """What to type, or to open, to see the run."""
        run = self.experiment
        return f"{program('wandb')} sync {shlex.quote(str(Path(run.dir).parent))}" if run.offline else str(run.url)


class RunMLflow(MLFlowLogger):
    """MLFlowLogger that goes on with the run of the launches before, takes images, and outlives a server that fails.

    Args:
        run_folder: of the run; without MLFLOW_TRACKING_URI in the environment, it is in `mlflow.db` beside all runs.
        options: of the run beside the hyperparameters of model and data.
    """

    def __init__(self, run_folder: Path, options: dict[str, Any]) -> None:
        self.options = options
        self.unsaved = ""
        root = run_folder.parent.parent
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        run_id = _kept(run_folder, "mlflow", lambda: None)
        local = (root / "mlflow_files").as_uri() if self.uri.startswith("sqlite:") else None
        super().__init__(
            root.name, f"{run_folder.parent.name}/{run_folder.name}", self.uri, artifact_location=local, run_id=run_id
        )
        if run_id is None:
            _kept(run_folder, "mlflow", lambda: self.run_id)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Send the hyperparameters, with the options of the run; of a resumed run, changed options become tags."""
        self._try(self._log_hyperparams, {**dict(params), **self.options})

    def _log_hyperparams(self, params: dict[str, Any]) -> None:
        known = self.experiment.get_run(self.run_id).data.params  # which MLflow lets nobody change
        super().log_hyperparams({name: value for name, value in params.items() if name not in known})
        for name, value in self.options.items():
            if name in known and known[name] != str(value):
                self.experiment.set_tag(self.run_id, name, str(value))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Send metrics."""
        self._try(super().log_metrics, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Send images."""
        for image in images:
            self._try(lambda image=image: self.experiment.log_image(self.run_id, image, key=key, step=step))

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the run in MLflow."""
        self._try(super().finalize, status)

    @property
    def next_command(self) -> str:
        """What to type to see the run."""
        return f"{program('mlflow')} ui --backend-store-uri {shlex.quote(self.uri)}"

    def _try(self, log: Callable[..., None], *args: Any) -> None:
        try:
            log(*args)
        except Exception as error:  # whatever a server answers, training goes on
            if not self.unsaved:
                say(f"MLflow did not take what was logged: {' '.join(str(error).split())[:200]}")
            self.unsaved = "some of what was logged to MLflow"


def _begun(make: Callable[[Path, dict[str, Any]], Logger]) -> Callable[[Path, int | None, dict[str, Any]], Logger]:
    """Return a builder that lets a logger begin its run now, before anything is trained."""

    def begin(run_folder: Path, step: int | None, options: dict[str, Any]) -> Logger:
        try:
            logger = make(run_folder, options)
            _ = logger.experiment  # type: ignore[attr-defined]
        except Exception as error:  # of a library that is not at hand here
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{option('logger')}: {make.__name__.removeprefix('Run')} does not begin: {reason}"
            ) from error
        return logger

    return begin


LOGGERS: dict[str, Callable[[Path, int | None, dict[str, Any]], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _begun(RunWandb),
    "mlflow": _begun(RunMLflow),
}


def _kept(run_folder: Path, logger: str, new: Callable[[], str | None]) -> str | None:
    """Return the identifier of the run in a logger: that of the launch before, or a new one, which is kept."""
    file = run_folder / IDS
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        read = json.loads(read_regular(file, 10_000))
        found = read if isinstance(read, dict) else {}
    known = found.get(logger)
    if isinstance(known, str) and re.fullmatch(r"\w{1,64}", known):
        return known
    identifier = new()
    if identifier is not None and not seat().rank:
        write_whole(file, json.dumps({**found, logger: identifier}) + "\n")
    return identifier
