"""The TensorBoard logger of a run: training, validation and test in one chart, each step once.

TensorBoard draws one chart for each name, and in it a line for each folder. So the metrics of training, validation and
test go to folders of their own below that of the run, under one name: `train_loss` is `curves/loss` in `train`. Charts
are sorted by name, and these come first.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary

from vgg_lightning.base.files import write_whole
from vgg_lightning.base.progress import say
from vgg_lightning.run.lightning_private import begin_new_file
from vgg_lightning.run.tensorboard_private import add_summary, writes_events

SPLITS = ("train", "val", "test")  # what the name of a metric may begin with, and a folder for each
WORDS = {"acc": "accuracy", "acc_tta": "accuracy_tta"}


class RunTensorBoard(TensorBoardLogger):
    """TensorBoardLogger with training, validation and test in one chart, and hyperparameters to compare runs by.

    Where nothing can be written, as on a full disk, that is said once, and training continues. A run whose earlier
    launches wrote other names, as all runs of version 0.1 did, keeps them: its curves continue.

    Args:
        step: the run resumes here; TensorBoard drops what was logged at this step and later.
        options: of the run beside the hyperparameters of model and data, for the tab HPARAMS.
        kwargs: of TensorBoardLogger.
    """

    def __init__(self, step: int | None = None, options: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs, default_hp_metric=False, log_graph=step is None, purge_step=step)
        self.options = dict(options or {})
        self._step = step
        self._failed = False
        self._draws = step is None
        self._parts: dict[str, SummaryWriter] = {}
        self._plain = step is not None and _has_plain_names(Path(self.log_dir))
        quiet_writer_threads()

    @property
    def experiment(self) -> SummaryWriter:
        """The writer. Lightning asks for it before every fit and test; on a full disk, nothing is written by it."""
        try:
            writer: SummaryWriter = super().experiment
            if isinstance(writer, SummaryWriter) and not self._plain:
                self._part("train")  # at once: this folder tells a later launch which names are in use
            return writer
        except OSError as error:
            self._note(error)
            return _Nowhere()  # type: ignore[return-value]

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Write the hyperparameters. Which of them differ between runs, TensorBoard finds and shows first."""
        self._try(self._log_hyperparams, params, metrics, step)

    def _log_hyperparams(self, params: Any, metrics: Any, step: int | None) -> None:
        super().log_hyperparams(params, metrics, step)
        words = {name: in_words(value) for name, value in {**dict(params), **self.options}.items()}
        # Without the first of the three summaries, a list of all hyperparameters: TensorBoard would take that of one
        # run for all of them, and show those that it names first.
        for summary in hparams_summary(words, {})[1:]:  # type: ignore[no-untyped-call]
            add_summary(self.experiment, summary)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Draw the network once, unless it lies in parts in several processes: that cannot be traced.

        The test at the end of a run would draw it again, and cannot if it is compiled.
        """
        if self._draws and not any(hasattr(weight, "to_local") for weight in model.parameters()):
            self._try(super().log_graph, model, input_array)
        self._draws = False

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Write scalars: where `place_of` says, but of the epoch, which says nothing beside the step."""
        self._try(super().log_metrics if self._plain else self._log_metrics, metrics, step)

    def _log_metrics(self, metrics: Mapping[str, Any], step: int | None) -> None:
        _ = self.experiment
        rates = [name for name in metrics if name.startswith("lr-")]
        same = {name for name in rates[1:] if metrics[name] == metrics[rates[0]]}
        for name, value in metrics.items():
            if name == "epoch" or name in same:
                continue
            part, tag = place_of(name)
            if name in rates:
                part, tag = "train", "every_step/learning_rate" + (f"_{name[3:]}" if name != rates[0] else "")
            self._part(part).add_scalar(tag, value, step)

    def _part(self, name: str) -> SummaryWriter:
        """Return the writer of a folder below that of the run, or that of the run if there is no name."""
        if not name:
            return self.experiment
        if name not in self._parts:
            folder = Path(self.log_dir) / name
            if folder.is_symlink():
                folder.unlink()  # lest the events go where it points to
            self._parts[name] = SummaryWriter(str(folder), purge_step=self._step)
        return self._parts[name]

    @rank_zero_only
    def save(self) -> None:
        """Flush, and write hparams.yaml where there is none yet."""
        self._try(self._save)

    def _save(self) -> None:
        for writer in (self.experiment, *self._parts.values()):
            writer.flush()
        file = Path(self.log_dir) / self.NAME_HPARAMS_FILE
        if file.parent.is_dir() and (file.is_symlink() or not file.is_file()):
            write_whole(file, yaml.safe_dump(_plain(self.hparams)))

    def finalize(self, status: str) -> None:
        """Close."""
        self._try(super().finalize, status)
        for writer in self._parts.values():
            self._try(writer.close)

    def show(self, log: Callable[[Any], None]) -> None:
        """Let `log` write what Lightning's logger has no method for to the writer of the run."""
        self._try(lambda: log(self.experiment))

    def _try(self, log: Callable[..., None], *args: Any) -> None:
        """Let training outlive a full disk: say it once, and write what comes later into a new file of events."""
        try:
            log(*args)
        except (OSError, ValueError) as error:  # Lightning wraps the one in the other
            reason = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(reason, OSError):
                raise
            self._note(reason)

    def _note(self, error: OSError) -> None:
        if not self._failed:
            say(f"{self.log_dir}: TensorBoard's file is not written: {error.strerror}")
        self._failed = True
        begin_new_file(self)
        self._parts = {}
        self._step = None  # what this launch has logged counts
        self._remove_empty()

    @property
    def unsaved(self) -> str:
        """What could not be written, or nothing."""
        return f"some of TensorBoard's files in {self.log_dir}" if self._failed else ""

    def _remove_empty(self) -> None:
        """Remove the files of this process into which nothing was written."""
        with contextlib.suppress(OSError):
            for folder in (Path(self.log_dir), *(Path(self.log_dir) / name for name in SPLITS)):
                for file in folder.glob(f"events.out.tfevents.*.{os.getpid()}.*"):
                    if not file.stat().st_size:
                        file.unlink()


def place_of(name: str) -> tuple[str, str]:
    """Return the folder below that of the run, or "", and the name under which TensorBoard shows a metric.

    `train_loss` and `val_loss` are lines of the chart `curves/loss`; `train_loss_step`, as `self.log(on_step=True)`
    names it, is one of `every_step/loss`. Other names stay.
    """
    split, _, rest = name.partition("_")
    if split not in SPLITS or not rest:
        return "", name
    group = "every_step" if rest.endswith("_step") else "curves"
    rest = rest.removesuffix("_step").removesuffix("_epoch") or rest
    return split, f"{group}/{WORDS.get(rest, rest)}"


def in_words(value: Any) -> str | float:
    """Return a hyperparameter as the tab HPARAMS shows it: a number, or words; it shows True as 1.0000."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(str(in_words(part)) for part in value) or "none"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _has_plain_names(folder: Path) -> bool:
    """Return whether the events of a run are of launches that wrote metrics under the names of `self.log`."""
    return any(folder.glob("events.out.tfevents.*")) and not (folder / "train").is_dir()


class _Nowhere:
    """A writer that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: _Nowhere()


def _plain(value: Any) -> Any:
    """Return options as plain values that any reader of YAML takes."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def quiet_writer_threads() -> None:
    """Keep the traceback of TensorBoard's thread off the screen: the logger says what it says, in one line."""
    original = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and writes_events(args.thread)):
            original(args)

    threading.excepthook = hook
