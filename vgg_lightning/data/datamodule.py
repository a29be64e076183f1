"""Fashion-MNIST as a LightningDataModule: uint8 in memory, whole batches on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from vgg_lightning.base.options import check
from vgg_lightning.base.progress import say
from vgg_lightning.data.augment import Augment, Place
from vgg_lightning.data.batches import Batch, BatchLoader
from vgg_lightning.data.files import Prepared, class_names, default_data_dir, load, prepare
from vgg_lightning.data.images.folder import Found, PictureLoader, find_pictures
from vgg_lightning.data.options import OPTIONS, PLACES
from vgg_lightning.data.sources.catalogue import CLASSES, DATASETS, MEAN, STD
from vgg_lightning.data.splits import stratified_split
from vgg_lightning.data.statistics import mean_and_std
from vgg_lightning.data.transforms import Preprocess

Split = Literal["train", "val", "test"]
Images = tuple[Tensor, Tensor]  # uint8 (N, 1, 28, 28) and labels, int64 (N,)
FEWEST = 2  # images in a training batch of a process: BatchNorm needs as many


class FashionMNISTDataModule(L.LightningDataModule):
    """Fashion-MNIST: 55,000 training, 5,000 validation, the 10,000 official test pictures; or data of the same form.

    Args:
        image_size: height and width in pixels that the network sees. 28 to 32 adds a black frame, more enlarges.
        batch_size: examples in a batch, over all devices.
        val_size: how many of the 60,000 official training pictures to hold out for validation, every class
            in its share, always the same ones; 0 trains on all.
        augment: what to do to the training pictures, in order: "flip" (left to right, or not, by chance),
            "alternating_flip" (in every other epoch), "shift" (by up to 2 pixels, black comes in), "crop" (the same,
            the mirrored edge comes in), "erase", "cutout", "affine", "tone", "randaugment"; and "mixup" or "cutmix",
            which mix labels too. Parameters stand behind colons: "crop:3", "erase:0.5:0.02:0.4"; see docs/recipes.md.
        normalize: subtract the mean and divide by the standard deviation of the training pictures.
        in_channels: channels of a batch; the grey channel is repeated.
        data_dir: folder of the data; by default $VGG_LIGHTNING_DATA or ~/.cache/vgg_lightning.
        dataset: "fashion_mnist", "mnist", "kmnist", "emnist_letters" (or _balanced, _digits, _mnist, _bymerge,
            _byclass), "idx" for your own four IDX files of MNIST's names in `data_dir`, or "folder" for your own
            pictures in `data_dir`, in a subfolder for each class.
        on_device: hold the pictures in the memory of the GPU that trains, so that no batch is copied there.
        seed: of the order and of the augmentation; by default that of seed_everything.
        classes: names of the classes of your own data, in the order of their labels; by default 0 to 9 for "idx",
            and the sorted names of the subfolders for "folder".
        mean: of the pixels of the training pictures, scaled to 0..1; by default it is computed.
        std: their standard deviation.
        predict_path: your own pictures for `predict`: a file, or a folder with all that is below it; by default
            the official test pictures are predicted.

    Raises:
        UserError: if an option is out of its range.
    """

    class_names: Sequence[str] = CLASSES

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 128,
        val_size: int = 5000,
        augment: list[str] | None = None,
        normalize: bool = True,
        in_channels: int = 1,
        data_dir: str | None = None,
        dataset: str = "fashion_mnist",
        on_device: bool = True,
        seed: int | None = None,
        classes: list[str] | None = None,
        mean: float | None = None,
        std: float | None = None,
        predict_path: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=PLACES)  # a path means nothing on another machine
        check("data", OPTIONS, self.hparams)
        self.class_names = class_names(dataset, classes, data_dir)
        known = DATASETS[dataset]
        own_dir = None if dataset == "folder" else default_data_dir()
        self.data_dir = Path(data_dir).expanduser() if data_dir else own_dir
        # Written down, so that they travel with a checkpoint.
        self.hparams["classes"] = list(self.class_names)
        self.hparams["mean"] = known.mean if mean is None else mean
        self.hparams["std"] = known.std if std is None else std
        self.preprocess = self._preprocess()
        self.augment = Augment(augment or [], num_classes=len(self.class_names))
        self.predict_path = predict_path
        self.own_pictures: Found | None = None
        self.prepared: Prepared | None = None
        self._splits: dict[Split, Images] = {}
        self._train_loader: BatchLoader | None = None
        self._resume_at: dict[str, int] = {}

    @property
    def seed(self) -> int:
        """The seed of the order and of the augmentation."""
        return int(self.hparams["seed"] or 0)

    def prepare_data(self) -> None:
        """Fetch and verify the files, unless own pictures are predicted. Raises UserError if no source has them."""
        if self._predicts_own():
            return
        self.prepared = prepare(self.data_dir, self.hparams["dataset"], self.class_names)

    def setup(self, stage: str) -> None:
        """Read the splits that `stage` ("fit", "validate", "test", "predict") needs into memory, once."""
        if stage == "predict" and self.predict_path is not None:
            self.own_pictures = self.own_pictures or find_pictures(self.predict_path)
            return
        if stage in ("fit", "validate") and "train" not in self._splits:
            images, labels = self._load("train")
            self._normalize_by(images)
            self._advise()
            train, val = stratified_split(labels, self.hparams["val_size"])
            self._splits["train"] = images[train], labels[train]
            self._splits["val"] = images[val], labels[val]
        if stage in ("test", "predict") and "test" not in self._splits:
            if None in (self.hparams["mean"], self.hparams["std"]):
                self._normalize_by(self._load("train")[0])
            self._splits["test"] = self._load("test")

    def pictures(self, split: Split) -> Images:
        """Return all uint8 pictures (N, 1, 28, 28) and labels (N,) of "train", "val" or "test"."""
        if split not in self._splits:
            self.prepare_data()
            self.setup("test" if split == "test" else "fit")
        return self._splits[split]

    def train_dataloader(self) -> BatchLoader:
        """Return a resumable loader in a seeded order, or in a fixed one if the Trainer overfits some batches."""
        self._train_loader = self._loader("train", shuffle=not self._overfits())
        if self._resume_at:
            self._train_loader.load_state_dict(self._resume_at)
        return self._train_loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation loader, or none if `val_size` is 0."""
        return self._loader("val") if self.hparams["val_size"] else []

    def test_dataloader(self) -> BatchLoader:
        """Return the loader of the official test pictures."""
        return self._loader("test")

    def predict_dataloader(self) -> BatchLoader | PictureLoader:
        """Return the loader of your own pictures if there is a `predict_path`, else of the official test pictures."""
        if self.own_pictures is not None:
            return PictureLoader(self.own_pictures, self.hparams["batch_size"])
        return self._loader("test")

    def state_dict(self) -> dict[str, int]:
        """Return where the training loader stands.

        Lightning saves it too, but does not restore it when the schedule has asked how long a run is: the loader
        is then there before the checkpoint is read.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next training loader go on from there."""
        self._resume_at = dict(state_dict)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment (in training), resize and normalise a batch on the device; mixes turn labels into targets."""
        if isinstance(batch, Tensor):
            return batch  # the model's example input, which is preprocessed already
        if not isinstance(batch, Batch):
            images, labels = batch
            return self.preprocess(images), labels
        images, labels = batch.images, batch.labels
        if self.trainer is not None and self.trainer.training:
            size = len(self._splits["train"][1])
            place = Place(self.seed, batch.epoch, batch.position, self.trainer.global_rank, batch.indices, size)
            images, labels = self.augment.mix(self.augment(images, place), labels, place)
        return batch._replace(images=self.preprocess(images), labels=labels)

    def _load(self, split: Literal["train", "test"]) -> Images:
        return load(self.data_dir, split, self.hparams["dataset"], self.class_names)

    def _preprocess(self) -> Preprocess:
        mean, std = self.hparams["mean"], self.hparams["std"]  # of own pictures not known before they are read
        size, normalize, channels = (self.hparams[name] for name in ("image_size", "normalize", "in_channels"))
        return Preprocess(size, normalize, channels, MEAN if mean is None else mean, STD if std is None else std)

    def _normalize_by(self, images: Tensor) -> None:
        """Take mean and standard deviation from the training pictures, unless they are known."""
        if None in (self.hparams["mean"], self.hparams["std"]) and self.hparams["normalize"]:
            self.hparams["mean"], self.hparams["std"] = mean_and_std(images)
            self.preprocess = self._preprocess()

    @rank_zero_only
    def _advise(self) -> None:
        dataset = DATASETS[self.hparams["dataset"]]
        if not dataset.mirrors_well and {"flip", "alternating_flip"} & set(self.hparams["augment"] or []):
            say(
                f"note: augment flips pictures of {dataset.title}, whose mirror images mean something else: try [shift]"
            )

    def _predicts_own(self) -> bool:
        predicts = self.trainer is not None and self.trainer.state.fn == TrainerFn.PREDICTING
        return predicts and self.predict_path is not None

    def _overfits(self) -> bool:
        return bool(getattr(self.trainer, "overfit_batches", 0))

    def _loader(self, split: Split, shuffle: bool = False) -> BatchLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        images, labels = self._splits[split]
        if self.trainer and self.hparams["on_device"]:
            device = self.trainer.strategy.root_device
            images, labels = images.to(device), labels.to(device)
        fewest = FEWEST if split == "train" else 1  # so that no process is without an image
        return BatchLoader(images, labels, self.hparams["batch_size"], shuffle, self.seed, rank, world_size, fewest)
