"""make bench and growth, with tiny work."""

import csv
import time

import pytest
import torch

from benchmarks import bench, growth
from benchmarks.bench import FIGURES, KEY, Measurement
from benchmarks.peers.clock import Clock, Enough
from benchmarks.peers.summary import printed, summary
from benchmarks.peers.work import WORKS, Work
from benchmarks.plan import ROWS, Row
from benchmarks.table import Table

TINY = ("--model.ratio", "32", "--model.head", "gap", "--data.batch_size", "16", "--trainer.max_epochs", "1")
FEW = ("--trainer.limit_train_batches", "5", "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1")


def read(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def line(contender, number, wall, **more):
    key = dict(zip(KEY, ("train", "lenet-28", contender, str(number)), strict=True))
    return {**dict.fromkeys((*FIGURES, "error"), ""), "quiet": "yes", **key, "wall": str(wall), **more}


def test_a_row_has_medians_and_ratios_within_rounds():
    row = Row("train", "lenet-28", ("project", "d2l_book", "keras_model"), goals=(("d2l_book", 2.0),))
    lines = [line("project", 1, 30), line("project", 2, 40), line("d2l_book", 1, 10), line("d2l_book", 2, 20)]
    lines.append(line("keras_model", 1, "", error="ModuleNotFoundError: No module named 'keras'"))
    project, book, keras = summary([row], lines, threads=1)
    assert (project["median"], project["ratio"], project["rounds"]) == ("35", "", "2")
    assert (book["median"], book["ratio"], book["ratio_least"], book["ratio_most"]) == ("15", "2.5", "2", "3")
    assert (keras["median"], keras["quiet"]) == ("not measured", "ModuleNotFoundError: No module named 'keras'")
    assert "at least 2: yes" in printed([book])


def test_a_benchmark_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    row = Row("train", "lenet-28", ("bare", "not_installed"), cost=5)
    monkeypatch.setattr(bench, "ROWS", (row,))
    done = Measurement(row, "bare", 1).key | {"wall": "123", "quiet": "yes"}
    rounds = tmp_path / "rounds.csv"
    Table(rounds, (*KEY, *FIGURES, "quiet", "error"), KEY).put([done])
    places = ["--table", str(tmp_path / "peers.csv"), "--rounds_file", str(rounds)]
    assert bench.main([*places, "--rounds", "2", "--seconds", "0.01", "--threads", "1"]) == 0
    bare, absent = read(tmp_path / "peers.csv")
    assert (bare["rounds"], bare["most"]) != ("2", "123") or float(bare["least"]) < 123
    assert float(bare["peak_mb"]) > 50
    assert absent["median"] == "not measured"
    assert "not_installed" in absent["quiet"]
    assert not rounds.exists()  # all is done: the next call measures anew
    assert "round 1  " not in capsys.readouterr().out.split("not_installed")[0]


def steps_without_end(clock):
    while True:
        clock.start()
        time.sleep(0.002)
        clock.start()
        clock.stop()
        time.sleep(0.002)


def test_a_clock_ends_a_loop_in_time():
    clock = Clock(seconds=0.02, least=2)
    with pytest.raises(Enough):
        steps_without_end(clock)
    figures = clock.figures(batch_size=10)
    assert 2 <= figures["steps"] < 20
    assert 0 < figures["wall"] < figures["step"] < 5000


def test_every_row_has_its_work_and_every_work_a_network():
    for row in ROWS:
        assert row.part == "start" or row.work in WORKS
    work = Work("sources/s0", {"model.ratio": 32})
    assert (work.batch_size, work.image_size) == (64, 224)
    assert work.network()(torch.zeros(1, 1, 224, 224)).shape == (1, 10)
    assert work.training_flops() > 1e7


def test_growth_has_a_row_and_a_drawing(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "BASE", {"data.batch_size": 2, "data.image_size": 32, "model.hidden_units": 8})
    monkeypatch.setattr(growth, "AXES", {"width (64 / ratio)": ("model.ratio", (32,))})
    table, drawing = tmp_path / "growth.csv", tmp_path / "growth.png"
    assert growth.main(["--seconds", "0.01", "--table", str(table), "--drawing", str(drawing)]) == 0
    (row,) = read(table)
    assert (row["axis"], row["value"]) == ("width (64 / ratio)", "2")
    assert float(row["seconds_per_step"]) > 0 < float(row["training_gflop_per_step"])
    assert drawing.stat().st_size > 5000
