"""metrics.csv and TensorBoard's files: what is logged is there in the end, or is named."""

import csv
import errno
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import fit

from vgg_lightning.run.loggers.csv import RunCSV
from vgg_lightning.run.loggers.tensorboard import RunTensorBoard, place_of


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def logger(tmp_path):
    logger = RunCSV(tmp_path)
    logger.log_metrics({"epoch": 0, "loss": 1.0}, 0)
    logger.log_metrics({"epoch": 0, "loss": 2.0}, 1)
    return logger


def steps(file):
    return [row["step"] for row in rows(file)]


def test_a_file_that_is_deleted_is_made_again_with_all_rows(logger, capsys):
    logger.file.unlink()
    logger.log_metrics({"epoch": 0, "loss": 3.0}, 2)
    assert steps(logger.file) == ["0", "1", "2"]
    assert "made again" in capsys.readouterr().err
    assert not logger.unsaved


def test_a_file_that_is_cut_short_is_made_again(logger):
    os.truncate(logger.file, 10)
    logger.log_metrics({"epoch": 0, "acc": 3.0}, 2)
    assert steps(logger.file) == ["0", "1", "2"]


def test_a_link_in_its_place_is_replaced(logger, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(logger.file.read_bytes())
    logger.file.unlink()
    logger.file.symlink_to(target)
    logger.log_metrics({"epoch": 0, "loss": 3.0}, 2)
    assert steps(logger.file) == ["0", "1", "2"]
    assert len(rows(target)) == 2


def test_rows_wait_while_a_folder_is_in_the_way(logger, capsys):
    logger.file.unlink()
    logger.file.mkdir()
    for step in (2, 3, 4):
        logger.log_metrics({"epoch": 0, "loss": 3.0}, step)
    assert logger.unsaved == f"3 rows of {logger.file}"
    assert "is not written" in capsys.readouterr().err
    logger.finalize("success")
    assert logger.unsaved
    assert not capsys.readouterr().err
    logger.file.rmdir()
    logger.finalize("success")
    assert not logger.unsaved
    assert steps(logger.file) == ["0", "1", "2", "3", "4"]


def test_a_disk_that_takes_half_a_row_keeps_whole_rows(logger, monkeypatch):
    write_end = RunCSV._write_end

    def full(self, data):
        with self.file.open("ab") as stream:
            stream.write(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(RunCSV, "_write_end", full)
    logger.log_metrics({"epoch": 0, "loss": 3.0}, 2)
    monkeypatch.setattr(RunCSV, "_write_end", write_end)
    logger.log_metrics({"epoch": 0, "loss": 4.0}, 3)
    assert steps(logger.file) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("content", "kept", "says"),
    [
        (b"step,epoch,loss\n0,0,1\n1,0,\xff\xfe\n2,0,3\n5,0,6\n7,0", ["0", "2"], "1 of its lines are not text"),
        (b"\xff\xfe\x00garbage\n0,0,1\n", [], "1 of its lines are not text"),
        (b"step,epoch,loss\n0,0,1,2,3,4\n1\n", ["0", "1"], ""),
        (b"step,epoch,loss\n" + b"9" * 30 + b",0,1\n\xc2\xb2,0,1\n-1,0,1\n", [], ""),
        (b"", [], ""),
    ],
)
def test_whatever_is_in_the_file_a_run_goes_on(tmp_path, capsys, content, kept, says):
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = RunCSV(tmp_path, step=4)
    logger.log_metrics({"epoch": 1, "loss": 9.0}, 4)
    assert steps(logger.file) == [*kept, "4"]
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda place: os.symlink("/dev/zero", place)])
def test_what_is_no_file_is_not_read(tmp_path, make):
    make(tmp_path / "metrics.csv")
    logger = RunCSV(tmp_path, step=4)
    logger.log_metrics({"loss": 9.0}, 4)
    assert bool(logger.unsaved) == (make is os.mkdir)


def events_of(folder):
    return EventAccumulator(str(folder)).Reload()


def board(folder, step=None, **options):
    return RunTensorBoard(step, options, save_dir=folder, name="run", version="version_0")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train_loss", ("train", "curves/loss")),
        ("val_acc", ("val", "curves/accuracy")),
        ("val_acc_tta", ("val", "curves/accuracy_tta")),
        ("train_loss_step", ("train", "every_step/loss")),
        ("train_loss_epoch", ("train", "curves/loss")),
        ("training", ("", "training")),
        ("val_", ("", "val_")),
        ("mae", ("", "mae")),
    ],
)
def test_where_tensorboard_shows_a_metric(name, place):
    assert place_of(name) == place


def test_equal_learning_rates_are_one_line(tmp_path):
    logger = board(tmp_path)
    logger.log_metrics({"lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.1, "epoch": 0}, 0)
    logger.log_metrics({"lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.8}, 1)
    logger.finalize("success")
    assert not events_of(logger.log_dir).Tags()["scalars"]
    events = events_of(Path(logger.log_dir) / "train")
    assert events.Tags()["scalars"] == ["every_step/learning_rate", "every_step/learning_rate_SGD/pg2"]
    assert [event.step for event in events.Scalars("every_step/learning_rate_SGD/pg2")] == [1]


def test_a_resumed_run_has_each_step_once(tmp_path):
    for step, steps in ((None, range(6)), (4, range(4, 9))):
        logger = board(tmp_path, step)
        for at in steps:
            logger.log_metrics({"train_loss_step": float(at), "val_loss": 0.0}, at)
        logger.finalize("success")
    for split, tag in (("train", "every_step/loss"), ("val", "curves/loss")):
        found = events_of(Path(logger.log_dir) / split).Scalars(tag)
        assert [event.step for event in found] == list(range(9))


def test_a_run_of_before_keeps_its_names(tmp_path):
    before = TensorBoardLogger(tmp_path, name="run", version="version_0", default_hp_metric=False)
    before.log_metrics({"train_loss": 2.0, "epoch": 0}, 0)
    before.finalize("success")
    logger = board(tmp_path, step=1)
    logger.log_metrics({"train_loss": 1.0, "epoch": 1, "lr-SGD/pg2": 0.1}, 1)
    logger.finalize("success")
    assert not (Path(logger.log_dir) / "train").exists()
    events = events_of(logger.log_dir)
    assert [event.step for event in events.Scalars("train_loss")] == [0, 1]
    assert set(events.Tags()["scalars"]) == {"epoch", "train_loss", "lr-SGD/pg2"}


def test_a_link_in_the_place_of_a_folder_is_removed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run/version_0").mkdir(parents=True)
    (tmp_path / "run/version_0/val").symlink_to(tmp_path / "elsewhere")
    logger = board(tmp_path)
    logger.log_metrics({"val_loss": 1.0}, 0)
    logger.finalize("success")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_hyperparameters_are_words_and_numbers(tmp_path):
    logger = board(tmp_path, max_epochs=3, precision="32-true")
    logger.log_hyperparams({"batch_norm": True, "augment": ["flip", "shift"], "weights": None, "lr": 0.1})
    logger.finalize("success")
    metadata = events_of(logger.log_dir).summary_metadata
    assert "_hparams_/experiment" not in metadata  # so that TensorBoard compares the runs itself
    data = HParamsPluginData.FromString(metadata["_hparams_/session_start_info"].plugin_data.content)
    found = {k: getattr(v, v.WhichOneof("kind")) for k, v in data.session_start_info.hparams.items()}
    words = {"batch_norm": "true", "augment": "flip, shift", "weights": "none", "precision": "32-true"}
    assert found == {**words, "lr": 0.1, "max_epochs": 3}


def test_a_full_disk_ends_no_run_and_leaves_no_empty_files(tmp_path, monkeypatch, capsys):
    logger = RunTensorBoard(save_dir=tmp_path, name="run", version="version_0")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    experiment = RunTensorBoard.experiment.fget

    def broken(self):
        writer = experiment(self)
        writer.add_scalar = writer.flush = writer.add_graph = writer.close = full
        writer._get_file_writer().add_summary = full
        return writer

    monkeypatch.setattr(RunTensorBoard, "experiment", property(broken))
    for _ in range(5):
        logger.log_hyperparams({"lr": 0.1})
        logger.log_metrics({"loss": 1.0}, 0)
        logger.save()
    logger.finalize("success")
    assert capsys.readouterr().err.count("\n") == 1
    assert "TensorBoard" in logger.unsaved
    assert not [file for file in Path(logger.log_dir).glob("events*") if not file.stat().st_size]


@pytest.mark.parametrize("what", ["metrics.csv", "a folder"])
def test_the_exit_code_says_that_metrics_are_lost(tmp_path, monkeypatch, what):
    """metrics.csv is removed in the middle of a run, or a folder takes its place to the end."""
    file = tmp_path / "lightning_logs/quick/version_0/metrics.csv"
    log = RunCSV.log_metrics

    def logs(self, metrics, step=None):
        log(self, metrics, step)
        if file.is_file():
            file.unlink()
            if what == "a folder":
                file.mkdir()

    monkeypatch.setattr(RunCSV, "log_metrics", logs)
    said = fit(tmp_path)
    assert "test accuracy" in said.out
    if what == "a folder":
        assert said.code == 1
        assert re.search(r"rows of \S*version_0/metrics.csv could not be written", said.err)
    else:
        assert said.code == 0
        assert "made again" in said.err


def test_a_run_folder_that_is_removed_is_not_made_again_in_part(tmp_path, monkeypatch):
    run = tmp_path / "lightning_logs/quick/version_0"
    log = RunCSV.log_metrics

    def logs(self, metrics, step=None):
        shutil.rmtree(run, ignore_errors=True)
        log(self, metrics, step)

    monkeypatch.setattr(RunCSV, "log_metrics", logs)
    said = fit(tmp_path)
    assert said.code == 1
    assert "the run folder is gone; training continues" in said.err
    assert "test accuracy" in said.out
    assert not list(run.rglob("*.ckpt"))
