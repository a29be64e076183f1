"""The parts of a recipe: each changes the numbers in the way that it says, and nothing else."""

import copy
import math

import lightning as L
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from small import data_folder, data_options, fit, launch, one_line
from torch.nn import functional as F

from vgg_lightning import Classifier, FashionMNISTDataModule
from vgg_lightning.base.errors import UserError
from vgg_lightning.classifier import load_classifier
from vgg_lightning.loading.load import read_checkpoint
from vgg_lightning.training.losses import label_loss, teacher_loss
from vgg_lightning.training.metrics import Scores, count
from vgg_lightning.training.muon import Muon, orthogonal
from vgg_lightning.training.sam import sharpness_aware

SMALL = {"ratio": 32, "batch_norm": True, "head": "gap", "dropout": 0.2}


def train(tmp_path, steps=1, callbacks=(), trainer=(), **options):
    """Train a small network and return it, its Trainer and its data."""
    torch.manual_seed(0)
    model = Classifier(**{**SMALL, **options})
    data = FashionMNISTDataModule(dataset="idx", data_dir=str(data_folder()), val_size=64, batch_size=16)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    run = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=steps, limit_val_batches=1, callbacks=list(callbacks),
        **quiet, **dict(trainer),
    )  # fmt: skip
    run.fit(model, data)
    return model, run, data


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.network.parameters()])


# Labels and targets.


def test_mixed_targets_and_label_smoothing_add_up_as_written():
    logits, targets = torch.randn(6, 10), torch.rand(6, 10).softmax(dim=1)
    smoothed = 0.9 * targets + 0.1 / 10
    expected = -(smoothed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert label_loss(logits, targets, 0.1) == pytest.approx(float(expected), rel=1e-6)
    labels = torch.arange(6)
    hard = label_loss(logits, labels, 0.1)
    assert label_loss(logits, F.one_hot(labels, 10).float(), 0.1) == pytest.approx(float(hard), rel=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_mixed_batches_train_in_every_precision_and_validation_stays_plain(tmp_path, precision, monkeypatch):
    model = Classifier(**SMALL, label_smoothing=0.1)
    seen = {}

    def counted(metrics, loss, logits, y, tta=None):
        seen[metrics.prefix] = y
        count(metrics, loss, logits, y, tta)

    monkeypatch.setattr("vgg_lightning.training.metrics.count", counted)
    data = FashionMNISTDataModule(
        dataset="idx", data_dir=str(data_folder()), val_size=64, batch_size=16, augment=["mixup", "cutmix:1:1", "flip"]
    )
    run = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", precision=precision, max_steps=2, limit_val_batches=1,
        logger=False, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        num_sanity_val_steps=0, val_check_interval=2,
    )  # fmt: skip
    run.fit(model, data)
    assert seen["train_"].shape == (16, 10)
    assert seen["val_"].dtype == torch.int64
    assert torch.isfinite(run.callback_metrics["val_loss"])


def test_train_acc_of_mixed_targets_goes_by_the_largest_share():
    model = Classifier(**SMALL)
    targets = torch.tensor([[0.6, 0.4, *[0.0] * 8], [0.3, 0.7, *[0.0] * 8]])
    count(model.train_metrics, torch.tensor(1.0), 9.0 * torch.eye(10)[:2], targets)
    assert model.train_metrics.compute()["train_acc"] == 1.0


# Rates.


def test_biases_have_a_rate_of_their_own_and_the_schedule_ends_above_zero(tmp_path):
    rates = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    options = {"lr": 0.1, "bias_lr_factor": 4.0, "schedule": "cosine", "schedule_end": 0.1}
    train(tmp_path, 8, [Watch()], **options)
    for weight_rate, bias_rate in rates:
        assert bias_rate == pytest.approx(4 * weight_rate)
    assert rates[-1][0] == pytest.approx(0.01)
    assert rates[3][0] == pytest.approx(0.01 + 0.09 / 2)


def test_a_resumed_run_keeps_the_rate_of_the_biases(tmp_path):
    more = ["--model.bias_lr_factor", "4", "--trainer.max_epochs", "1", "--model.batch_norm", "true"]
    assert fit(tmp_path, *more, "--name", "a").code == 0
    resumed = launch(
        ["fit", "--resume", "--name", "a", *data_options(), "--trainer.max_epochs", "2", "--model.lr", "0.5"], tmp_path
    )
    assert resumed.code == 0, resumed.err
    (state,) = read_checkpoint(next(tmp_path.rglob("last.ckpt")))["optimizer_states"]
    assert [group["initial_lr"] for group in state["param_groups"]] == [0.5, 2.0]


# Sharpness-aware minimization.


def test_the_step_of_sam_is_that_of_the_definition():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    x, y = torch.randn(16, 4), torch.randint(0, 3, (16,))
    reference = copy.deepcopy(network)

    def closure():
        network.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        return loss

    before = copy.deepcopy(network.state_dict())
    loss = sharpness_aware(network, closure, closure, rho=0.1)()
    reference_loss = F.cross_entropy(reference(x), y)
    assert loss.item() == reference_loss.item()
    gradients = torch.autograd.grad(reference_loss, list(reference.parameters()))
    length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
    moved = copy.deepcopy(reference)
    with torch.no_grad():
        for p, g in zip(moved.parameters(), gradients, strict=True):
            p += 0.1 * g / length
    expected = torch.autograd.grad(F.cross_entropy(moved(x), y), list(moved.parameters()))
    for p, g in zip(network.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, g, atol=1e-6)
    for name, p in network.named_parameters():
        assert torch.equal(p, before[name])  # no rounding is left of the way there and back
    assert torch.equal(network[1].running_mean, reference[1].running_mean)  # of the first pass alone
    assert network[1].momentum == 0.1


def test_sam_counts_every_picture_once_and_changes_the_weights(tmp_path):
    plain, _, _ = train(tmp_path, 2)
    counted = []
    sharp, run, _ = train(tmp_path, 2, [Counter(counted)], sam_rho=0.2)
    assert counted == [16, 32]
    assert run.global_step == 2
    assert not torch.equal(weights(plain), weights(sharp))


class Counter(L.Callback):
    def __init__(self, counted):
        self.counted = counted

    def on_train_batch_end(self, trainer, model, *_):
        self.counted.append(int(model.train_metrics["loss"].weight))


def test_sam_stops_at_numbers_that_are_not_finite_with_sound_weights(tmp_path):
    from vgg_lightning.base.errors import NonFiniteError

    model = None

    class Break(L.Callback):
        def on_before_backward(self, trainer, module, loss):
            nonlocal model
            model = module
            if trainer.global_step == 1:
                loss.data.fill_(float("nan"))

    with pytest.raises(NonFiniteError, match="the loss is NaN or Inf"):
        train(tmp_path, 3, [Break()], sam_rho=0.1)
    assert torch.isfinite(weights(model)).all()


# Muon.


@pytest.mark.parametrize("shape", [(16, 9), (9, 16), (32, 32)])
def test_muon_makes_singular_values_alike_and_keeps_the_directions(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    got = orthogonal(matrix) / max(1.0, shape[0] / shape[1]) ** 0.5
    values = (u.T @ got @ v.T).diagonal()
    assert values.min() > 0.6
    assert values.max() < 1.3
    rest = u.T @ got @ v.T - values.diag()
    assert rest.abs().max() < 0.02


def test_muon_moves_filters_by_orthogonal_steps_and_biases_as_sgd():
    torch.manual_seed(0)
    filters, bias = torch.nn.Parameter(torch.randn(8, 3, 3, 3)), torch.nn.Parameter(torch.randn(8))
    twin = torch.nn.Parameter(bias.detach().clone())
    muon = Muon([{"params": [filters], "weight_decay": 0.5}, {"params": [bias]}], 0.1, 0.9, True)
    sgd = torch.optim.SGD([twin], 0.1, 0.9, nesterov=True)
    buffer, expected = torch.zeros_like(filters), filters.detach().clone()
    for _ in range(3):
        filters.grad, bias.grad = torch.randn_like(filters), torch.randn_like(bias)
        twin.grad = bias.grad.clone()
        muon.step()
        sgd.step()
        buffer = 0.9 * buffer + filters.grad
        step = orthogonal((filters.grad + 0.9 * buffer).reshape(8, 27)).reshape(8, 3, 3, 3)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * step
    assert torch.allclose(bias, twin)
    assert torch.allclose(filters, expected, atol=1e-5)


def test_muon_trains_through_the_door(tmp_path):
    options = ["--model.optimizer", "muon", "--model.lr", "0.05", "--model.momentum", "0.6", "--model.ema_decay", "0.5"]
    assert fit(tmp_path, *options).code == 0


# Distillation.


def test_the_loss_of_a_teacher_is_hintons():
    student, teacher, heat = torch.randn(5, 10), torch.randn(5, 10), 3.0
    p, q = (teacher / heat).softmax(1), (student / heat).softmax(1)
    expected = heat**2 * (p * (p / q).log()).sum(1).mean()
    assert teacher_loss(student, teacher, heat) == pytest.approx(float(expected), rel=1e-5)
    assert teacher_loss(teacher, teacher, heat) == pytest.approx(0, abs=1e-6)


def test_a_teacher_is_learnt_from_and_in_no_checkpoint(tmp_path):
    assert fit(tmp_path, "--name", "teacher").code == 0
    teacher = next(tmp_path.glob("lightning_logs/teacher/version_0"))
    taught = [
        "--name",
        "student",
        "--model.teacher",
        str(teacher),
        "--model.distill",
        "0.5",
        "--model.ema_decay",
        "0.5",
    ]
    assert fit(tmp_path, *taught).code == 0
    assert fit(tmp_path, "--name", "alone").code == 0
    student, alone = (next(tmp_path.glob(f"lightning_logs/{n}/*/checkpoints/last.ckpt")) for n in ("student", "alone"))
    found = read_checkpoint(student)
    assert found["state_dict"].keys() == read_checkpoint(alone)["state_dict"].keys()
    assert "teacher" not in found["hyper_parameters"]
    assert found["hyper_parameters"]["distill"] == 0.5
    assert not torch.equal(weights(load_classifier(student)), weights(load_classifier(alone)))
    (teacher / "checkpoints" / "best.ckpt").unlink()
    tested = launch(["test", "--ckpt_path", str(student), "--data.data_dir", str(data_folder())], tmp_path)
    assert tested.code == 0, tested.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.distill", "0.5"], "--model.distill needs a teacher"),
        (["--model.teacher", "nowhere", "--model.distill", "0.5"], "nowhere does not exist"),
        (["--model.teacher", "TEACHER"], "no effect without --model.distill"),
        (["--model.teacher", "TEACHER", "--model.distill", "0.5", "--data.image_size", "40"], "has image_size 32"),
        (["--model.sam_rho", "0.1", "--trainer.accumulate_grad_batches", "2"], "--trainer.accumulate_grad_batches"),
        (["--model.schedule_end", "2"], "--model.schedule_end takes 0 to 1"),
        (["--model.bias_lr_factor", "0"], "--model.bias_lr_factor takes a positive"),
        (["--model.tta", "flip_shft"], "did you mean flip_shift"),
        (["--data.augment", "[erase:2]"], "--data.augment takes it as erase:P:LEAST:MOST"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(tmp_path, options, words):
    assert fit(tmp_path, "--name", "teacher").code == 0
    before = sorted(tmp_path.rglob("*"))
    teacher = str(next(tmp_path.glob("lightning_logs/teacher/version_0")))
    launched = fit(tmp_path, "--name", "b", *(teacher if o == "TEACHER" else o for o in options))
    assert launched.code == 2
    assert words in one_line(launched)
    assert sorted(tmp_path.rglob("*")) == before


# Views.


def test_six_views_have_the_weights_that_they_should(monkeypatch):
    model = Classifier(
        network="vgg_small", poolings=2, batch_norm=True, head="gap", image_size=28, tta="flip_shift"
    ).eval()
    x = torch.randn(3, 1, 28, 28)
    big = F.pad(x, (1, 1, 1, 1), mode="reflect")
    centre, one, other = (big[..., a : a + 28, a : a + 28] for a in (1, 0, 2))
    expected = sum(
        weight * (model(view) + model(view.flip(-1))) / 2
        for view, weight in ((centre, 0.5), (one, 0.25), (other, 0.25))
    )
    assert torch.allclose(model.average(x), expected, atol=1e-5)


def test_both_accuracies_are_reported(tmp_path):
    launched = fit(tmp_path, "--model.tta", "flip_shift")
    assert launched.code == 0
    assert launched.out.count("% with test-time augmentation") == 2  # in validation and in test


# Networks for 28 pixels.


def test_three_poolings_leave_three_pixels_of_28():
    network = Classifier(network="vgg13", poolings=3, batch_norm=True, head="gap", image_size=28).network
    kinds = {torch.nn.Conv2d: lambda m: m.out_channels, torch.nn.MaxPool2d: lambda m: "M"}
    layers = [kinds[type(m)](m) for m in network.blocks.modules() if type(m) in kinds]
    assert layers == [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, 512, 512]
    assert network.blocks(torch.zeros(1, 1, 28, 28)).shape == (1, 512, 3, 3)
    with pytest.raises(UserError, match="5 poolings need at least 32"):
        Classifier(network="vgg13", image_size=28)


def test_vgg_small_has_at_most_300_000_parameters():
    network = Classifier(network="vgg_small", poolings=2, batch_norm=True, head="gap", image_size=28).network
    assert sum(p.numel() for p in network.parameters()) <= 300_000


# The sums of a running epoch.


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_sums_are_restored_where_the_metrics_lie(stage):
    # On a GPU, Lightning restores them while the model and its metrics may lie on different devices.
    model = Classifier(network="lenet", image_size=28)
    model.train_metrics.to("meta")
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.state.fn = {"fit": TrainerFn.FITTING, "test": TrainerFn.TESTING}[stage]
    sums = {"loss": {"mean_value": torch.tensor(6.0), "weight": torch.tensor(4.0)}}
    Scores().on_load_checkpoint(trainer, model, {"train_metrics": sums})
    assert model.train_metrics["loss"].mean_value.device.type == "meta"
    assert model.train_metrics["loss"].update_called == (stage == "fit")


def test_sums_are_restored_in_float32_after_the_weights_are_rounded():
    model, scores = Classifier(network="lenet", image_size=28), Scores()
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", precision="bf16-true")
    trainer.state.fn = TrainerFn.FITTING
    sums = {"loss": {"mean_value": torch.tensor(257.0), "weight": torch.tensor(257.0)}}
    scores.on_load_checkpoint(trainer, model, {"train_metrics": sums})
    model.train_metrics["loss"].set_dtype(torch.bfloat16)  # as Lightning does with the weights
    scores.on_fit_start(trainer, model)
    assert model.train_metrics["loss"].mean_value == 257
    assert model.train_metrics["loss"].mean_value.dtype == torch.float32
