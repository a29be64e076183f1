"""The options that are combined, and how pairs and triples of them are drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import harness

DEFAULTS = {
    "--data.dataset": "idx",
    "--data.val_size": "30",
    "--data.batch_size": "16",
    "--model.lr": "0.02",
    "--trainer.max_epochs": "2",
    "--trainer.accelerator": "cpu",
    "--trainer.devices": "1",
    "--trainer.log_every_n_steps": "1",
    "--trainer.enable_progress_bar": "false",
    "--checkpoint_minutes": "0",
    "--show": "none",
    "--name": "draw",
}
NETWORKS = {
    "lenet": "--model.network lenet --data.image_size 28",
    "vgg": "--model.network vgg11 --model.ratio 64 --model.head gap --model.batch_norm true",
    "classic": "--model.network vgg11 --model.ratio 64 --model.hidden_units 8 --model.dropout 0.3 --model.init kaiming",
}
# BatchNorm takes its statistics from the share of a process, and dropout differs by process.
SAME_IN_ALL_PROCESSES = (
    "--model.network vgg11 --model.ratio 64 --model.head gap --model.batch_norm false --model.dropout 0 "
    "--model.init kaiming --data.image_size 32"
)
# {option: {value: arguments}}. What is not among the arguments, such as how a run is broken, is up to who runs them.
OPTIONS: dict[str, dict[str, str]] = {
    "resume": {
        "stopped by a signal": "",
        "killed within an epoch": "--checkpoint_every_n_steps 1",
        "killed after an epoch": "--trainer.max_epochs 3",
    },
    "precision": {name: f"--trainer.precision {name}" for name in ("64-true", "bf16-mixed", "bf16-true")},
    "ema": {decay: f"--model.ema_decay {decay}" for decay in ("0.5", "0.9")},
    "sam": {rho: f"--model.sam_rho {rho}" for rho in ("0.05", "0.5")},
    "lookahead": {steps: f"--model.lookahead_steps {steps}" for steps in ("1", "3")},
    "accumulation": {count: f"--trainer.accumulate_grad_batches {count}" for count in ("2", "3", "20")},
    "clipping": {
        "norm": "--trainer.gradient_clip_val 0.1",
        "large norm": "--trainer.gradient_clip_val 1.0 --trainer.gradient_clip_algorithm norm",
        "value": "--trainer.gradient_clip_val 0.01 --trainer.gradient_clip_algorithm value",
    },
    "val_check_interval": {every: f"--trainer.val_check_interval {every}" for every in ("0.5", "0.3", "2", "7", "9")},
    "check_val_every_n_epoch": {
        "2": "--trainer.check_val_every_n_epoch 2 --trainer.max_epochs 4",
        "3": "--trainer.check_val_every_n_epoch 3 --trainer.max_epochs 3",
    },
    "limit_train": {limit: f"--trainer.limit_train_batches {limit}" for limit in ("3", "0.7", "0.1")},
    "limit_val": {limit: f"--trainer.limit_val_batches {limit}" for limit in ("1", "0.5", "0")},
    "limit_test": {limit: f"--trainer.limit_test_batches {limit}" for limit in ("1", "0.7")},
    "max_epochs": {epochs: f"--trainer.max_epochs {epochs}" for epochs in ("1", "4")},
    "max_steps": {
        "5": "--trainer.max_steps 5",
        "11": "--trainer.max_steps 11",
        "12, no epochs": "--trainer.max_steps 12 --trainer.max_epochs -1",
    },
    "max_time": {
        "never": "--trainer.max_time 00:01:00:00",
        "5 batches": "--trainer.max_time 00:00:00:05",  # of which each takes a second, by the clock of the tests
        "13 batches": "--trainer.max_time 00:00:00:13",
    },
    "early_stopping": {patience: f"--early_stopping {patience} --trainer.max_epochs 6" for patience in ("1", "2")},
    "tta": {views: f"--model.tta {views}" for views in ("flip", "flip_shift")},
    "augment": {
        names: f"--data.augment [{names}]"
        for names in (
            *("flip", "shift,flip", "crop:3,erase", "cutout,tone", "affine,randaugment", "alternating_flip"),
            *("mixup", "cutmix:1:1", "flip,mixup,cutmix"),
        )
    },
    "optimizer": {
        "sgd": "--model.optimizer sgd --model.momentum 0.9 --model.weight_decay 0.01",
        "nesterov": "--model.optimizer sgd --model.momentum 0.9 --model.nesterov true --model.bias_lr_factor 2",
        "adam": "--model.optimizer adam --model.lr 0.003",
        "adamw": "--model.optimizer adamw --model.lr 0.003 --model.weight_decay 0.1",
        "muon": "--model.optimizer muon --model.momentum 0.9",
    },
    "schedule": {
        "cosine": "--model.schedule cosine --model.warmup_epochs 0.5",
        "linear": "--model.schedule linear --model.warmup_epochs 1 --model.schedule_end 0.1",
        "constant": "--model.warmup_epochs 1.5",
        "cosine to an end": "--model.schedule cosine --model.schedule_end 0.2",
    },
    "label_smoothing": {share: f"--model.label_smoothing {share}" for share in ("0.1", "0.4")},
    "teacher": {share: f"--model.distill {share}" for share in ("0.5", "1.0")},
    "compile": {"aot_eager": "--model.compile aot_eager"},
    "data": {
        "folder": "--data.dataset folder --data.val_size 12",  # the last batch has one image
        "colour": "--model.in_channels 3 --data.image_size 32 --data.normalize false",
        "no validation": "--data.val_size 0",
        "uneven batches": "--data.batch_size 33 --data.val_size 31",
    },
    "processes": {"2": f"--trainer.devices 2 {SAME_IN_ALL_PROCESSES}"},
    "log_every_n_steps": {every: f"--trainer.log_every_n_steps {every}" for every in ("3", "50")},
    "test": {"false": "--test false"},
}
VALUES = [(option, value) for option, values in OPTIONS.items() for value in values]


class Draw(NamedTuple):
    """A network and two or three options with a value each; `seed` decides what else is random about its runs."""

    network: str
    values: dict[str, str]
    seed: int

    def arguments(self) -> dict[str, str]:
        """Return all options with their values, without the paths of data and teacher."""
        words = [word for pair in DEFAULTS.items() for word in pair]
        words += NETWORKS[self.network].split()
        words += [word for option, value in self.values.items() for word in OPTIONS[option][value].split()]
        words += ["--seed_everything", str(self.seed)]
        once = harness.once(["fit", *words])[1:]
        return dict(zip(once[::2], once[1::2], strict=True))


def draws(count: int, seed: int) -> Iterator[Draw]:
    """Yield so many draws; every value has its turn before one comes again, beside one or two of other options."""
    chance = random.Random(seed)
    deck: list[tuple[str, str]] = []
    for _ in range(count):
        if not deck:
            deck = chance.sample(VALUES, len(VALUES))
        first, value = deck.pop()
        others = chance.sample([option for option in OPTIONS if option != first], chance.choice((1, 2)))
        chosen = {first: value} | {option: chance.choice(list(OPTIONS[option])) for option in others}
        # In the order of the table, so that what an option says of another one does not depend on the draw.
        chosen = {option: chosen[option] for option in OPTIONS if option in chosen}
        yield Draw(chance.choice(list(NETWORKS)), chosen, chance.randrange(1000))
