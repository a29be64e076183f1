"""`vgg-lightning sweep`: a search for good options, each trial a run of `vgg-lightning fit`."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_own
from vgg_lightning.base.imports import imports
from vgg_lightning.base.text import count, install_line, say, wrapped

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from vgg_lightning.sweep.options import FitOptions
    from vgg_lightning.sweep.space import Space
    from vgg_lightning.sweep.trial import Job, Outcome

HOPELESS = 5  # trials in a row that fail, none complete: the next ones would too
OWN = ("--trials", "--storage", "--name", "--prune")


def main(args: list[str]) -> int:
    """Search for the options with the best val_acc; the test images are not used."""
    own, options = _parse(args)
    try:
        import optuna  # noqa: F401
        import optuna_integration  # noqa: F401
    except ImportError as error:
        raise UserError(f"sweep needs the package optuna: {install_line('sweep')}") from error
    return _Sweep(own, options, args).run()


def _parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        "vgg-lightning sweep",
        usage="vgg-lightning sweep SPACE.yaml [options] [options of fit]",
        description=main.__doc__,
        allow_abbrev=False,
        epilog="All other options are those of fit, and hold for all trials. docs/sweep.md has an example.",
    )
    parser.add_argument("space", metavar="SPACE.yaml", help="options to search, each with a range or a list")
    parser.add_argument("--trials", default="20", help="total number of trials, including earlier launches (20)")
    parser.add_argument(
        "--storage", help="storage address of Optuna, such as postgresql://...; default: a file in the search folder"
    )
    parser.add_argument(
        "--name", help="name of the search and its folder in lightning_logs (default: that of SPACE.yaml)"
    )
    parser.add_argument(
        "--prune", default="true", choices=("true", "false"), help="stop unpromising trials early (true)"
    )
    if not args or {"-h", "--help"} & set(args):
        parser.print_help()
        raise SystemExit(0 if args else 2)
    if args[0].startswith("-"):
        raise UserError("sweep takes the file of the space first: vgg-lightning sweep SPACE.yaml --trials 20")
    own, options = _split(args)
    return parser.parse_args([args[0], *own]), options


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """Return the options of sweep, each as --name=value, and those of fit."""
    own: list[str] = []
    rest: list[str] = []
    words = list(args[1:])
    while words:
        name, equals, value = (word := words.pop(0)).partition("=")
        if name not in OWN:
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UserError(f"{name} has no value")
            value = words.pop(0)
        if name == "--prune" and value not in ("true", "false"):
            raise UserError(f"--prune takes true or false, got {value!r}")
        if name == "--trials" and not (value.isdecimal() and 0 < int(value) < 10**6):
            raise UserError(f"--trials takes a whole number of 1 or more, got {value!r}")
        own.append(f"{name}={value}")
    for word in rest:
        if near := difflib.get_close_matches(word.partition("=")[0], OWN, n=1, cutoff=0.8):
            raise UserError(f"option {word.partition('=')[0]} is unknown (did you mean {near[0]}?)")
    return own, rest


class _Sweep:
    """One launch of a search.

    Args:
        own: the options of sweep.
        options: those of fit.
        args: all, to print the command that resumes.
    """

    def __init__(self, own: argparse.Namespace, options: list[str], args: list[str]) -> None:
        from vgg_lightning.sweep.options import FitOptions
        from vgg_lightning.sweep.space import read_space
        from vgg_lightning.sweep.study import quiet
        from vgg_lightning.training.limits import check_run

        quiet()
        self.command = args
        self.wanted = int(own.trials)
        self.prune = own.prune == "true"
        file = Path(own.space)
        self.name: str = own.name or re.sub(r"[^\w.+-]", "-", file.stem)
        check_run({"name": self.name})
        self.fit: FitOptions = FitOptions(options)
        self.space: Space = read_space(file, self.fit.hints())
        self.fit.check(self.space)
        root = self.fit.config.trainer.default_root_dir or "."
        self.folder = Path(root).resolve() / "lightning_logs" / self.name
        self.owns_storage = own.storage is None
        self.storage: str = own.storage or f"sqlite:///{self.folder / 'study.db'}"
        self.failures = 0

    def run(self) -> int:
        """Run trials until there are as many as wanted, and report."""
        from vgg_lightning.run import signals
        from vgg_lightning.sweep.space import describe
        from vgg_lightning.sweep.study import open_study, remember, taking_part

        self._prepare()
        study = open_study(self.folder, self.storage, self.name, int(self.fit.config.seed_everything), self.prune)
        remember(study, "space", describe(self.space))
        remember(study, "options", self.fit.plain({}))
        epochs = count(self.fit.config.trainer.max_epochs, "epoch")
        where = f"folder {_short(self.folder)}, storage {_hidden(self.storage)}"
        say(wrapped(f"search {self.name}: {count(self.wanted, 'trial')} of {epochs}, {where}"))
        try:
            with taking_part(study, self.folder, self.owns_storage):
                self._run_trials(study)
        except (signals.Interrupted, KeyboardInterrupt) as stop:
            code = getattr(stop, "code", 130)
            raise signals.Interrupted(code - 128, f"resume with: {self._again()}") from stop
        return self._report(study)

    def _prepare(self) -> None:
        """Have the data and the folder before the first trial."""
        from vgg_lightning.data.datamodule import FashionMNISTDataModule

        data = FashionMNISTDataModule(**self.fit.config.data.as_dict())
        data.prepare_data()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.close(open_own(self.folder / ".lock", os.O_RDWR))
        except OSError as error:
            raise UserError(
                f"cannot write {self.folder}: {error.strerror}; choose another with --trainer.default_root_dir"
            ) from error

    def _run_trials(self, study: Study) -> None:
        from vgg_lightning.sweep.optuna_private import trial_id
        from vgg_lightning.sweep.study import next_trial, running
        from vgg_lightning.sweep.trial import run_trial

        waits = False
        while True:
            trial = next_trial(study, self.folder, self.space, self.wanted)
            if trial is not None:
                begin = time.monotonic()
                outcome = run_trial(study, trial, self._job(study, trial_id(trial), trial.number, trial.params))
                self._say(study, trial.number, outcome, time.monotonic() - begin)
            elif not running(study):
                return
            else:
                if not waits:
                    say("waiting for the trials of other processes")
                waits = True
                time.sleep(2)

    def _job(self, study: Study, trial_id: int, number: int, params: dict[str, object]) -> Job:
        from vgg_lightning.sweep.trial import Job

        options = (*self.fit.arguments(params), "--name", self.name)
        output = self.folder / "output" / f"trial_{number}.txt"
        return Job(self.storage, self.name, trial_id, options, self.folder, output, Path.cwd(), study.pruner, imports())

    def _say(self, study: Study, number: int, outcome: Outcome, seconds: float) -> None:
        """Print a line, and stop a search in which nothing works."""
        from vgg_lightning.sweep.report import STATES, best_of, chosen, epochs_of
        from vgg_lightning.sweep.study import trials

        found = {trial.number: trial for trial in trials(study)}
        trial = found.get(number)
        if trial is None:
            say(f"trial {number}: {outcome.note}")
            return
        value = "" if outcome.value is None else f" val_acc {outcome.value:.4f}"
        note = f": {outcome.note}" if outcome.note else ""
        line = (
            f"trial {number}: {STATES[outcome.state]}{value}, {count(epochs_of(trial), 'epoch')}, {seconds:.0f} s, "
            f"{chosen(trial.params)}{note}{self._left(list(found.values()))}"
        )
        say(wrapped(line))
        self.failures = self.failures + 1 if outcome.state.name == "FAIL" else 0
        if self.failures >= HOPELESS and best_of(study) is None:
            raise UserError(f"{self.failures} trials in a row have failed, the last with: {outcome.note}")

    def _left(self, found: list[FrozenTrial]) -> str:
        durations = [t.duration.total_seconds() for t in found if t.state.is_finished() and t.duration]
        left = self.wanted - sum(trial.state.is_finished() for trial in found)
        return f"; {left} left, {left * statistics.mean(durations) / 60:.1f} min" if left > 0 and durations else ""

    def _report(self, study: Study) -> int:
        from vgg_lightning.base.text import program
        from vgg_lightning.sweep import report
        from vgg_lightning.sweep.study import lock

        say(f"\n{report.table(study)}\n")
        best = report.best_of(study)
        with lock(self.folder):
            report.write_csv(study, self.folder / "trials.csv")
            report.write_hparams(study, self.folder / "hparams")
            if best:
                preset = self.folder / "best.yaml"
                report.write_preset(study, best, self.fit.plain(best.params), preset)
        say(f"all trials     {_short(self.folder / 'trials.csv')}")
        if best is None:
            say(f"no trial got to its end; what they printed is in {_short(self.folder / 'output')}")
            return 1
        place = self.fit.config.data.data_dir  # of this machine, so in no preset
        data = f" --data.data_dir {shlex.quote(str(place))}" if place else ""
        say(
            f"the best       trial {best.number}, val_acc {best.value:.4f}: {_short(preset)}\n\nnext:\n"
            f"  {program('vgg-lightning')} fit --config {shlex.quote(_short(preset))}{data}\n"
            f"  {program('tensorboard')} --logdir {shlex.quote(_short(self.folder / 'hparams'))}"
        )
        return 0

    def _again(self) -> str:
        from vgg_lightning.base.text import program

        return f"{program('vgg-lightning')} sweep {shlex.join(self.command)}"


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _hidden(address: str) -> str:
    """Return the address of a storage without its password."""
    from sqlalchemy.engine import make_url

    return make_url(address).render_as_string(hide_password=True)
