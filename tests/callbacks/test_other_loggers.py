"""Other loggers than TensorBoard: what goes there, what does not, and that a run is whole with each of them."""

import json
import re
import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import Logger

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import BRIEF, NETWORK, data_folder, data_options, fit, launch, one_line

from vgg_lightning.prepare import fit as fit_run
from vgg_lightning.prepare import prepare

EVERYTHING = ("--show", "default", "--trainer.log_every_n_steps", "1")


class Kept(Logger):
    """A logger of one's own that keeps what it is given."""

    name, version = "kept", 0

    def __init__(self):
        super().__init__()
        self.metrics, self.hyperparameters = [], {}

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args, **kwargs):
        self.hyperparameters.update(params)


class KeptImages(Kept):
    """One that takes images too, as Lightning's WandbLogger does."""

    def __init__(self):
        super().__init__()
        self.images = []

    def log_image(self, key, images, step=None):
        self.images += [(key, step, image.size) for image in images]


def run_of(folder):
    (run,) = folder.glob("lightning_logs/*/version_*")
    return run


def whole(run, epochs=1):
    """See that a run has all that belongs to it whatever logs it."""
    rows = (run / "metrics.csv").read_text().splitlines()
    assert "val_scores" not in rows[0]
    assert sum("val_acc" in row for row in rows) == 1
    assert json.loads((run / "results.json").read_text())["epochs"] == epochs
    assert (run / "checkpoints/last.ckpt").is_file()


@pytest.mark.parametrize("logger", [Kept, KeptImages])
def test_any_logger_of_lightning_gets_numbers_hyperparameters_and_what_it_takes(tmp_path, monkeypatch, capsys, logger):
    monkeypatch.chdir(tmp_path)
    kept = logger()
    limits = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "max_epochs": 1}
    trainer = {**limits, "accelerator": "cpu", "logger": kept, "log_every_n_steps": 1}
    data = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16}
    fit_run(prepare({"ratio": 64, "head": "gap"}, data, trainer=trainer))
    said = capsys.readouterr()
    whole(run_of(tmp_path))
    names = {name for _, metrics in kept.metrics for name in metrics}
    assert {"train_loss_step", "train_loss", "val_acc", "test_acc"} <= names
    assert kept.hyperparameters["ratio"] == 64
    assert not list(tmp_path.rglob("events.*"))
    assert "next:" in said.out
    missing = "graph, curves, projector, histograms and text: TensorBoard does"
    if logger is Kept:
        assert f"note: Kept does not show images, {missing}" in said.err
    else:
        assert f"note: KeptImages does not show {missing}" in said.err
        assert "val_scores/calibration_error" in names
        assert ("val_pictures/confusion", 1) in {image[:2] for image in kept.images}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--logger", "tensorbord"),
            "--logger tensorbord is unknown (did you mean tensorboard?): it takes tensorboard, ",
        ),
        (("--logger", "mlflow", "--trainer.logger", "false"), "--logger and --trainer.logger are both given"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, monkeypatch, options, said):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    launched = fit(tmp_path, *options)
    assert launched.code == 2
    assert said in one_line(launched)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_remedy(tmp_path, monkeypatch, name):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    launched = fit(tmp_path, "--logger", name)
    assert launched.code == 2
    assert re.search(rf"--logger {name} needs its package: pip install .*\[{name}\]", one_line(launched))


def resume(folder):
    done = launch(["fit", "--resume", "--trainer.max_epochs", "2"], folder)
    assert done.code == 0, done.err
    assert "those steps come twice" in done.err
    return done


def test_mlflow_with_a_local_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install -e '.[mlflow]'")
    pytest.importorskip("sqlalchemy", reason="the local store of mlflow needs SQLAlchemy")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = launch(["fit", *data_options(), *NETWORK, *BRIEF, *EVERYTHING, "--logger", "mlflow"], tmp_path)
    assert done.code == 0, done.err
    run = run_of(tmp_path)
    whole(run)
    assert "does not show graph, curves, projector" in done.err
    assert not list(run.rglob("events.*"))
    assert "mlflow ui --backend-store-uri sqlite:///" in done.out
    assert resume(tmp_path).out.count("mlflow ui") == 1
    whole(run, epochs=2)
    client = MlflowClient(f"sqlite:///{tmp_path / 'lightning_logs/mlflow.db'}")
    found = client.get_run(json.loads((run / "loggers.json").read_text())["mlflow"])
    assert found.info.status == "FINISHED"
    assert found.data.params["ratio"] == "64"
    assert (found.data.params["max_epochs"], found.data.tags["max_epochs"]) == ("1", "2")
    assert [point.step for point in client.get_metric_history(found.info.run_id, "val_acc")] == [1, 3]
    images = [file.path for file in client.list_artifacts(found.info.run_id, "images")]
    assert any("confusion" in path and "step+3" in path for path in images)


def test_wandb_offline(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    options = [*data_options(), *NETWORK, *BRIEF, *EVERYTHING, "--logger", "tensorboard,wandb"]
    done = launch(["fit", *options], tmp_path)
    wandb.finish()
    assert done.code == 0, done.err
    run = run_of(tmp_path)
    whole(run)
    assert list(run.glob("events.*"))
    assert "does not show" not in done.err  # TensorBoard does
    assert "wandb sync " in done.out
    resume(tmp_path)
    wandb.finish()
    whole(run, epochs=2)
    identifier = json.loads((run / "loggers.json").read_text())["wandb"]
    first, second = sorted(run.glob(f"wandb/offline-run-*-{identifier}"))
    for folder in (first, second):
        assert list(folder.glob("files/media/images/val_pictures/confusion_*.png"))
        stored = next(folder.glob("*.wandb")).read_bytes()
        assert all(name in stored for name in (b"val_acc", b"train_loss_step", b"max_epochs", b"calibration_error"))
