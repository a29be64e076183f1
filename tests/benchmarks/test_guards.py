"""What guards cost, measured on a tiny epoch."""

import csv
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from small import data_folder

from benchmarks import guards
from vgg_lightning import Classifier
from vgg_lightning.prepare import prepare
from vgg_lightning.run.guards.finite import FiniteGuard


def test_a_row_holds_medians_and_their_spread(tmp_path, capsys):
    table = tmp_path / "guards.csv"
    assert (
        guards.main(["--batches", "1", "--rounds", "2", "--table", str(table), "--data_dir", str(data_folder())]) == 0
    )
    with table.open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["preset"], row["batches"], row["rounds"]) == ("quick", "1", "2")
    assert float(row["share_least"]) <= float(row["share"]) <= float(row["share_most"])
    assert min(float(row["seconds_with"]), float(row["seconds_without"])) > 0
    assert "round 2 of 2" in capsys.readouterr().out


def test_without_guards_there_are_none_and_afterwards_they_are_back(tmp_path):
    data = {"dataset": "idx", "data_dir": str(data_folder())}
    trainer = {"accelerator": "cpu", "default_root_dir": str(tmp_path), "limit_train_batches": 0.001}
    with guards.without_guards():
        run = prepare({"network": "lenet"}, data, trainer=trainer)  # with guards it is refused: no batch is left
        assert run.lock is not None
        assert run.lock._free
        assert not any(isinstance(callback, FiniteGuard) for callback in run.model.configure_callbacks())
    assert any(isinstance(callback, FiniteGuard) for callback in Classifier(network="lenet").configure_callbacks())
