"""The runs that `benchmarks.bits` compares: the presets, and a small network with each option in turn.

A launch of `fit` is written down as a text of options, "model.ratio=16 data.augment=[flip]", on top of `SMALL` or of a
preset. DATA and PICTURES stand for the folders that `make_data` fills, REFERENCE for a run folder to open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Command = tuple[str, ...]  # what follows `python`

TRAINED, TESTED = 512, 64  # images that `make_data` makes
PER_EPOCH = 10  # steps
BRIEF = (
    "trainer.limit_val_batches=2 trainer.limit_test_batches=1 trainer.log_every_n_steps=1 trainer.accelerator=cpu "
    "trainer.devices=1 trainer.enable_progress_bar=false trainer.precision=32-true show=none"
)
# Options that are not named are those of the preset `quick`: SGD with momentum, a schedule, flipped images.
# Mean and deviation are given: commit c70e37a took those of Fashion-MNIST for any IDX files.
SMALL = (
    f"{BRIEF} model.ratio=32 data.dataset=idx data.data_dir=DATA data.val_size=64 data.batch_size=16 "
    "data.mean=0.286 data.std=0.353"
)
FIRST = "lightning_logs/first/version_0"  # the run of the launch before
RESUMED = "ckpt_path=lightning_logs/run/version_0"
VGG_SMALL = "model.network=vgg_small model.poolings=2 data.image_size=28 data.batch_size=8"

PRESETS: dict[str, str] = {  # with batches of 32, or of less where images or networks are large
    "quick": "",
    "blank": "",
    "record-cpu": "",
    "record": "data.batch_size=8",
    "small": "",
    "speedrun": "",
    "speedrun94": "",
    "debug/overfit": "trainer.limit_train_batches=1.0",
    "sources/s0": "data.batch_size=4",
    "sources/s2-alexnet": "data.batch_size=4",
    "sources/s2-densenet": "data.batch_size=4",
    "sources/s2-googlenet": "data.batch_size=4",
    "sources/s2-lenet": "",
    "sources/s2-lenet-scratch": "",
    "sources/s2-nin": "data.batch_size=4",
    "sources/s2-resnet": "data.batch_size=8",
    "sources/s2-vgg": "data.batch_size=2",
    "sources/s3": "data.batch_size=2",
    "sources/s4-224": "data.batch_size=4",
    "sources/s4-96": "data.batch_size=8",
    "sources/s4-vgg19": "data.batch_size=4",
}

# name -> the options of one launch after the other
OPTIONS: dict[str, tuple[str, ...]] = {
    "small": ("",),
    # Networks.
    **{name: (f"model.network={name}",) for name in ("vgg13", "vgg16", "vgg19")},
    "vgg_small": (VGG_SMALL,),
    "lenet": ("model.network=lenet model.ratio=1 model.lr=0.1 data.image_size=28",),
    "options": (
        'model.network=densenet model.options={"growth_rate":4} model.ratio=1 model.lr=0.1 data.image_size=32',
    ),
    "ratio": ("model.ratio=16",),
    "head-classic": ("model.head=classic model.hidden_units=64 model.dropout=0.5",),
    "head-classic-without-norm": ("model.head=classic model.hidden_units=32 model.batch_norm=false model.lr=0.01",),
    "head-batchnorm": ("model.head=batchnorm model.hidden_units=64",),
    "hidden_units": ("model.head=classic model.hidden_units=48",),
    "batch_norm-false": ("model.batch_norm=false model.lr=0.01",),
    "norm_after_relu": ("model.norm_after_relu=true",),
    "dropout": ("model.dropout=0.3",),
    "poolings": ("model.poolings=3",),
    "in_channels": ("model.in_channels=3",),
    "num_classes": ("model.num_classes=10",),
    **{f"init-{name}": (f"model.init={name}",) for name in ("default", "xavier", "kaiming", "dirac")},
    "channels_last-false": ("model.channels_last=false",),
    # How they are trained.
    "sgd": ("model.optimizer=sgd model.momentum=0 model.nesterov=false",),
    "sgd-momentum": ("model.optimizer=sgd model.momentum=0.8 model.nesterov=false",),
    "adam": ("model.optimizer=adam model.lr=0.001",),
    "adamw": ("model.optimizer=adamw model.lr=0.001 model.weight_decay=0.05",),
    "muon": ("model.optimizer=muon model.lr=0.02",),
    "muon-nesterov-false": ("model.optimizer=muon model.lr=0.02 model.nesterov=false",),
    "lr": ("model.lr=0.03",),
    "weight_decay": ("model.weight_decay=0.01",),
    **{f"schedule-{name}": (f"model.schedule={name}",) for name in ("constant", "cosine", "linear")},
    "schedule_end": ("model.schedule=cosine model.schedule_end=0.1",),
    "warmup_epochs": ("model.warmup_epochs=0.5",),
    "warmup_epochs-0": ("model.warmup_epochs=0",),
    "label_smoothing": ("model.label_smoothing=0.2",),
    "label_smoothing-0": ("model.label_smoothing=0",),
    "bias_lr_factor": ("model.bias_lr_factor=4",),
    "ema_decay": ("model.ema_decay=0.9",),
    "lookahead_steps": ("model.lookahead_steps=3",),
    "sam_rho": ("model.sam_rho=0.05",),
    "sam_rho-dropout-ema": ("model.sam_rho=0.05 model.dropout=0.2 model.ema_decay=0.8",),
    "tta-flip": ("model.tta=flip",),
    "tta-flip_shift": ("model.tta=flip_shift",),
    "compile-aot_eager": ("model.compile=aot_eager",),
    "compile-default": ("model.compile=default",),
    "weights": ("name=first", f"model.weights={FIRST} model.lr=0.01"),
    "teacher": ("name=first", f"model.ratio=64 model.teacher={FIRST} model.distill=0.5"),
    "distill_temperature": (
        "name=first",
        f"model.ratio=64 model.teacher={FIRST} model.distill=0.9 model.distill_temperature=4",
    ),
    "whitened_vgg": (
        "model.network=whitened_vgg model.ratio=8 model.init=dirac model.lookahead_steps=5 config=speedrun",
    ),
    # Data.
    **{
        f"augment-{name}": (f"data.augment=[{text}]",)
        for name, text in {
            "none": "",
            "flip": "flip",
            "alternating_flip": "alternating_flip",
            "shift": "shift",
            "crop": "crop:3",
            "erase": "erase:0.5:0.02:0.4",
            "cutout": "cutout",
            "affine": "affine",
            "tone": "tone",
            "randaugment": "randaugment",
            "photo": "photo",
            "mixup": "mixup",
            "cutmix": "cutmix:1.0:0.5",
            "all": "flip,shift,crop,erase,cutout,affine,tone,randaugment,photo,mixup,cutmix",
        }.items()
    },
    "image_size-28": (VGG_SMALL,),
    "image_size-30": ("data.image_size=30 model.poolings=4",),
    "image_size-56": ("data.image_size=56",),
    "image_size-96": ("data.image_size=96",),
    "batch_size": ("data.batch_size=13",),
    "val_size-0": ("data.val_size=0",),
    "normalize-false": ("data.normalize=false",),
    "mean-and-std": ("data.mean=0.4 data.std=0.3",),
    "on_device-false": ("data.on_device=false",),
    "seed_everything": ("seed_everything=7",),
    "data.seed": ("data.seed=3",),
    "classes": ("data.classes=[a,b,c,d,e,f,g,h,i,j]",),
    "folder": (  # all of the test: which images a part of data that lies by class has, has changed
        "data.dataset=folder data.data_dir=PICTURES data.val_size=8 data.batch_size=8 trainer.limit_test_batches=1.0",
    ),
    "fashion_mnist": ("data.dataset=fashion_mnist data.data_dir=null data.val_size=5000",),
    # The Trainer.
    "accumulate_grad_batches": ("trainer.accumulate_grad_batches=3",),
    "gradient_clip_val": ("trainer.gradient_clip_val=0.5",),
    "gradient_clip_algorithm": ("trainer.gradient_clip_val=0.01 trainer.gradient_clip_algorithm=value",),
    "precision-bf16-mixed": ("trainer.precision=bf16-mixed",),
    "precision-bf16-true": ("trainer.precision=bf16-true",),
    "precision-64-true": ("trainer.precision=64-true",),
    "val_check_interval": ("trainer.val_check_interval=4",),
    "check_val_every_n_epoch": ("trainer.check_val_every_n_epoch=2",),
    "limit_train_batches": ("trainer.limit_train_batches=0.25",),
    "limit_val_batches": ("trainer.limit_val_batches=0",),
    "num_sanity_val_steps": ("trainer.num_sanity_val_steps=2",),
    "overfit_batches": ("trainer.overfit_batches=3 data.val_size=0",),
    "max_steps": ("trainer.max_steps=7",),
    "deterministic": ("trainer.deterministic=true",),
    "test-false": ("test=false",),
    "early_stopping": ("early_stopping=1 trainer.max_epochs=6 model.lr=0.5",),
    "show-all": ("show=all",),
    "two-ddp": ("trainer.devices=2 model.dropout=0.2 data.augment=[flip,shift,cutmix]",),
    "two-ddp-ema": ("trainer.devices=2 trainer.strategy=ddp model.ema_decay=0.9",),
    "two-ddp-uneven": ("trainer.devices=2 data.batch_size=15",),
    "two-fsdp": ("trainer.devices=2 trainer.strategy=fsdp model.dropout=0.2",),
    "two-fsdp-adamw": ("trainer.devices=2 trainer.strategy=fsdp model.optimizer=adamw model.lr=0.001",),
    # Resumed runs: between two epochs, and within one.
    "resumed": ("name=run trainer.max_epochs=1 model.ema_decay=0.9", f"{RESUMED} trainer.max_epochs=2"),
    "resumed-within-an-epoch": (
        "name=run trainer.max_steps=6 checkpoint_every_n_steps=3 model.ema_decay=0.9 data.augment=[alternating_flip]",
        f"{RESUMED} trainer.max_steps=-1",
    ),
    "resumed-lookahead": ("name=run trainer.max_steps=7 model.lookahead_steps=3", f"{RESUMED} trainer.max_steps=-1"),
    "resumed-accumulating": (
        "name=run trainer.max_steps=2 trainer.accumulate_grad_batches=2 model.optimizer=adam model.lr=0.001",
        f"{RESUMED} trainer.max_steps=-1",
    ),
}
LONG = ("quick", "speedrun", "record-cpu")

OPEN = """
import sys

import numpy
import torch

from vgg_lightning import load_classifier

images = torch.from_numpy(numpy.random.default_rng(0).integers(0, 256, (64, 1, 28, 28)).astype("uint8"))
model = load_classifier(sys.argv[1]).eval()
with torch.inference_mode():
    logits = model(model.preprocess(images))
found = model.predict(images[:, 0])
torch.save({"logits": logits, "probabilities": torch.as_tensor(found.probabilities)}, "opened.ckpt")
"""


@dataclass(frozen=True)
class Case:
    """Programs that are run one after the other in one folder.

    Args:
        name: of the case, unique.
        commands: what follows `python`, for each of them.
    """

    name: str
    commands: tuple[Command, ...]


def fit(*texts: str) -> Command:
    """Return the command of one run of `fit`; of an option that is given twice, the last value counts."""
    options = dict(part.split("=", 1) for text in texts for part in text.split())
    if options.get("data.data_dir") == "null":
        del options["data.data_dir"]  # the data folder of the user
    return ("-m", "vgg_lightning", "fit", *(part for name, value in options.items() for part in (f"--{name}", value)))


def all_cases(steps: int, long: bool = False) -> list[Case]:
    """Return all cases.

    Args:
        steps: of a run; those of a preset are two epochs or more.
        long: whether to add 300 steps of three presets as they are.
    """
    per_epoch = min(PER_EPOCH, max(1, steps // 2))
    length = f"trainer.limit_train_batches={per_epoch} trainer.max_epochs={-(-steps // per_epoch)}"
    cases = [
        Case(f"preset-{name}", (fit(f"config={name}", BRIEF, length, "data.batch_size=32", text),))
        for name, text in PRESETS.items()
    ]
    for name, launches in OPTIONS.items():
        fits, before = [], ""
        for text in launches:
            before = f"{before} {text}" if "ckpt_path" in text else text  # what is resumed has the options of before
            fits.append(fit(SMALL, length, before))
        cases.append(Case(name, tuple(fits)))
    cases.append(Case("open", (("-c", OPEN, "REFERENCE"),)))
    export = ("-m", "vgg_lightning", "export", "REFERENCE", "--output", "model.safetensors")
    cases.append(Case("export", (export, ("-c", OPEN, "model.safetensors"))))
    if long:
        whole = f"{BRIEF} trainer.limit_train_batches=150 trainer.max_epochs=2"
        cases += [Case(f"long-{name}", (fit(f"config={name}", whole),)) for name in LONG]
    return cases


def make_data(folder: Path) -> None:
    """Write small images of 10 classes as IDX files into `folder`/idx, and of 3 as PNG into `folder`/images."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 200, (10, 28, 28))
    (folder / "idx").mkdir(parents=True)
    for split, count in (("train", TRAINED), ("t10k", TESTED)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = (patterns[labels] + random.integers(0, 56, (count, 28, 28))).astype(np.uint8)
        head = struct.pack(">4I", 0x803, count, 28, 28)
        (folder / "idx" / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / "idx" / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, count) + labels.tobytes())
        if split == "train":
            for number in np.flatnonzero(labels < 3)[:120]:
                name = folder / "pictures" / f"class_{labels[number]}" / f"{number:03}.png"
                name.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[number]).save(name)
