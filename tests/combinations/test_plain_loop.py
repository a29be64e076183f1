"""Training gives what a plain loop in torch gives, which knows nothing of `vgg_lightning.training`."""

import copy
import math

import pytest
import torch
from running import make_data
from torch.nn import functional as F

from vgg_lightning.prepare import fit, prepare

EPOCHS = 3
MODEL = {"network": "vgg11", "ratio": 64, "head": "gap", "batch_norm": True, "dropout": 0.0, "init": "kaiming"}


def optimizer_of(o, parameters):
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": o.get("weight_decay", 0.0)},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},  # biases and BatchNorm
    ]
    if (name := o.get("optimizer", "sgd")) == "sgd":
        return torch.optim.SGD(groups, o["lr"], o.get("momentum", 0.0), nesterov=o.get("nesterov", False))
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, o["lr"])


def rate(o, step, per_epoch, total):
    """Return the learning rate of a step: a straight climb, then the schedule, which ends at the last step but one."""
    warm_up = round(o.get("warmup_epochs", 0) * per_epoch)
    if step < warm_up:
        return o["lr"] * (step + 1) / (warm_up + 1)
    progress, end = (step - warm_up) / (total - warm_up), o.get("schedule_end", 0.0)
    falls = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 + 0.5 * math.cos(math.pi * progress)}
    return o["lr"] * (end + (1 - end) * falls[o.get("schedule", "constant")])


def plain_loop(network, epochs, o, accumulate=1, clip=None, by_value=False, max_steps=math.inf):
    """Train `network` on epochs of batches (images, labels); return its state, or the moving average of it."""
    parameters = list(network.parameters())
    optimizer, average = optimizer_of(o, parameters), None
    per_epoch = math.ceil(len(epochs[0]) / accumulate)
    total = min(per_epoch * len(epochs), max_steps)
    groups = [batches[i : i + accumulate] for batches in epochs for i in range(0, len(batches), accumulate)]
    for step, group in enumerate(groups[:total]):
        for settings in optimizer.param_groups:
            settings["lr"] = rate(o, step, per_epoch, total)
        optimizer.zero_grad()
        for images, labels in group:
            loss = F.cross_entropy(network(images), labels, label_smoothing=o.get("label_smoothing", 0.0))
            # The gradient of a step is that of the mean over all of its examples.
            (loss * len(labels) / sum(len(labels) for _, labels in group)).backward()
        if clip and by_value:
            torch.nn.utils.clip_grad_value_(parameters, clip)
        elif clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if o.get("ema_decay"):
            average = averaged(average, network.state_dict(), o["ema_decay"])
    return average or network.state_dict()


def averaged(average, state, decay):
    """Return the moving average with one more state; counters are the newest."""
    if average is None:
        return copy.deepcopy(state)
    return {k: decay * average[k] + (1 - decay) * v if v.is_floating_point() else v.clone() for k, v in state.items()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    torch.set_num_threads(1)
    return str(make_data(tmp_path_factory.mktemp("data")) / "idx")


def batches_of(data):
    """Return the batches of all epochs as the network takes them."""
    loader = data.train_dataloader()
    epochs = []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        epochs.append([(data.preprocess(images).double(), labels) for images, labels, *_ in loader])
    return epochs


CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"optimizer": "adam", "lr": 0.003, "weight_decay": 0.1},
    "adamw": {"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1},
    "cosine": {"momentum": 0.9, "schedule": "cosine", "warmup_epochs": 0.5},
    "linear": {"schedule": "linear", "warmup_epochs": 1.3, "schedule_end": 0.1, "label_smoothing": 0.1},
    "warm-up and max_steps": {"schedule": "linear", "warmup_epochs": 1, "trainer": {"max_steps": 14}},
    "average": {"momentum": 0.9, "ema_decay": 0.8},
    "clipped by norm": {"momentum": 0.9, "trainer": {"gradient_clip_val": 0.5}},
    "clipped by value": {"trainer": {"gradient_clip_val": 0.02, "gradient_clip_algorithm": "value"}},
    # 8 batches of 16, the last one of 8: groups of 3, 3 and 2 batches
    "accumulated": {"momentum": 0.9, "trainer": {"accumulate_grad_batches": 3}},
    "all at once": {
        **{"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.1, "schedule": "cosine", "warmup_epochs": 1},
        **{"schedule_end": 0.2, "ema_decay": 0.7, "label_smoothing": 0.2},
        "trainer": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5},
    },
}


@pytest.mark.parametrize("name", CASES)
def test_training_is_that_of_a_plain_loop(name, data_dir, tmp_path):
    o = {"lr": 0.05, **CASES[name]}
    trainer = o.pop("trainer", {})
    run = prepare(
        MODEL | o,
        {"dataset": "idx", "data_dir": data_dir, "val_size": 30, "batch_size": 16},
        trainer={
            **{"max_epochs": EPOCHS, "precision": "64-true", "accelerator": "cpu", "devices": 1},
            **{"enable_progress_bar": False, "logger": False, "default_root_dir": str(tmp_path), **trainer},
        },
        show=None,
        test=False,
    )
    network = copy.deepcopy(run.model.network).double()
    fit(run)
    expected = plain_loop(
        network,
        batches_of(run.data),
        o,
        trainer.get("accumulate_grad_batches", 1),
        trainer.get("gradient_clip_val"),
        trainer.get("gradient_clip_algorithm") == "value",
        trainer.get("max_steps", math.inf),
    )
    saved = torch.load(run.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for key, value in expected.items():
        torch.testing.assert_close(saved[f"network.{key}"], value, rtol=1e-9, atol=1e-9)
