"""What long work says on a terminal and elsewhere, and what a test says of each class."""

import contextlib
import io
import json
import re
import signal
import types

import pytest
import small

from vgg_lightning.__main__ import main
from vgg_lightning.base.progress import bytes_bar, counting_bar, percent_bar
from vgg_lightning.data.sources.catalogue import DATASETS
from vgg_lightning.run import progress

ESCAPE = "\x1b["
GREEN = "\x1b[32m"

CLASSES = DATASETS["idx"].classes  # of the images that these runs are given


class Terminal(io.StringIO):
    """What a bar takes for a terminal."""

    def isatty(self):
        return True


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    launched = small.fit(folder, "--trainer.limit_test_batches", "8", "--show", "none")
    assert launched.code == 0, launched.err
    (folder / "stdout").write_text(launched.out)
    return folder / "lightning_logs/quick/version_0"


def on_terminal(args, monkeypatch, **variables):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = Terminal()
    with contextlib.redirect_stdout(out):
        assert main(args) == 0
    return out.getvalue()


def evaluate(subcommand, run):
    return [subcommand, "--ckpt_path", str(run), "--data.data_dir", str(small.data_folder())]


def class_rows(text):
    """Return {class: (accuracy in percent, images)} of the table in a text."""
    found = re.findall(r"^ *(\S(?:.*?\S)?) +([\d.]+) % +([\d,]+)", text, re.MULTILINE)
    return {name: (float(share), int(count)) for name, share, count in found if name in CLASSES}


def test_a_terminal_gets_a_bar_with_the_time_left(run, monkeypatch):
    for subcommand, word in (("test", "Testing"), ("predict", "Predicting"), ("validate", "Validation")):
        text = on_terminal(evaluate(subcommand, run), monkeypatch)
        assert word in text
        assert re.search(r"\d+/\d+ \[\d+:\d+<\d+:\d+", text)
        assert GREEN in text


def test_no_color_and_a_dumb_terminal_get_a_bar_without_colour(run, monkeypatch):
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        text = on_terminal(evaluate("test", run), monkeypatch, **variables)
        assert "Testing" in text
        assert GREEN not in text


def test_a_file_gets_neither_bar_nor_colour(run, tmp_path):
    launched = small.launch(evaluate("test", run), tmp_path)
    assert launched.code == 0
    for text in (launched.out, launched.err, (run.parents[2] / "stdout").read_text()):
        assert ESCAPE not in text
        assert "\r" not in text
        assert "batch " not in text  # it was done soon


def test_long_work_gets_lines_in_a_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    for subcommand, word in (("test", "test"), ("predict", "prediction"), ("validate", "validation")):
        lines = small.launch(evaluate(subcommand, run), tmp_path).out.splitlines()
        said = [line for line in lines if re.fullmatch(rf"{word}: batch \d+ of \d+, [\d.]+ (s|min|h) left", line)]
        assert 1 <= len(said) <= progress.MOST_LINES + 1
    text = small.fit(tmp_path, "--trainer.limit_train_batches", "4", "--show", "none").out
    assert re.search(r"^epoch 1: batch \d of 4, \d+ s left$", text, re.MULTILINE)


def test_the_bars_of_downloads_and_measurements_know_the_time_left(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for plain in (False, True):
        monkeypatch.setenv("NO_COLOR", "1" if plain else "")
        screen = Terminal()
        with contextlib.redirect_stderr(screen):
            for make in (lambda: bytes_bar("a", "b", 10), lambda: percent_bar("c"), lambda: counting_bar("d", 3)):
                with make() as bar:
                    bar.update(2)
                    bar.refresh()
        assert screen.getvalue().count("<") >= 3
        assert (ESCAPE + "32m" in screen.getvalue()) is not plain


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0 s"), (42, "42 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_duration_in_words(seconds, text):
    assert progress.duration(seconds) == text


def test_fit_and_test_end_with_the_accuracy_of_each_class(run, tmp_path):
    results = json.loads((run / "results.json").read_text())
    accuracies = results["test_acc_per_class"]
    assert list(accuracies) == list(CLASSES)
    for text in ((run.parents[2] / "stdout").read_text(), small.launch(evaluate("test", run), tmp_path).out):
        rows = class_rows(text)
        assert list(rows) == list(CLASSES)
        right = sum(share * count for share, count in rows.values()) / 100
        assert right / sum(count for _, count in rows.values()) == pytest.approx(results["test_acc"], abs=2e-3)
        assert [share for share, _ in rows.values()] == pytest.approx(
            [100 * accuracies[name] for name in CLASSES], abs=0.01
        )
        assert max(map(len, text.splitlines())) < 200


def test_without_a_test_there_is_no_table(tmp_path):
    launched = small.fit(tmp_path, "--test", "false", "--show", "none")
    assert "most often taken for" not in launched.out
    (results,) = tmp_path.rglob("results.json")
    assert json.loads(results.read_text())["test_acc_per_class"] == {}


def test_a_run_that_goes_on_within_an_epoch_counts_the_time_since_then(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=90_000.0, monotonic=lambda: clock.now)  # of a machine that runs for a day
    real, stops = progress.Lines.on_train_batch_end, [(1, 4)]

    def ten_seconds_a_batch(lines, trainer, pl_module, outputs, batch, batch_idx):
        clock.now += 10
        real(lines, trainer, pl_module, outputs, batch, batch_idx)
        if (trainer.current_epoch, batch_idx) in stops:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress.Lines, "on_train_batch_end", ten_seconds_a_batch)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    size = ("--trainer.limit_train_batches", "8", "--trainer.max_epochs", "3", "--show", "none", "--test", "false")
    assert small.fit(tmp_path, *size).code == 143
    stops.clear()
    went_on = small.fit(tmp_path, *size, "--ckpt_path", "last")
    assert went_on.code == 0, went_on.err
    lines = [line for line in went_on.out.splitlines() if line.startswith("epoch ")]
    assert lines[0] == "epoch 2: batch 6 of 8, 20 s left"
    (second,) = (line for line in lines if line.startswith("epoch 2/3"))
    assert second.endswith("80 s an epoch, 1.3 min left")
