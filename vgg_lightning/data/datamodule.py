"""Fashion-MNIST as a LightningDataModule: uint8 in memory, whole batches on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.options import check
from vgg_lightning.base.seeds import place_of
from vgg_lightning.base.text import printable
from vgg_lightning.data.augment import Augment, Place
from vgg_lightning.data.augment.patches import FILL
from vgg_lightning.data.batches import Batch, BatchLoader
from vgg_lightning.data.files import Prepared, class_names, default_data_dir, load, prepare, training_counts
from vgg_lightning.data.images.folder import Found, PictureLoader, find_pictures
from vgg_lightning.data.notes import advise, tell_of_lost_classes
from vgg_lightning.data.options import CLASSES, MEAN, OPTIONS, PLACES, STD
from vgg_lightning.data.sizes import Sizes
from vgg_lightning.data.sources.catalogue import DATASETS, DatasetName
from vgg_lightning.data.splits import Part, part_order, stratified_split
from vgg_lightning.data.statistics import mean_and_std
from vgg_lightning.data.transforms import Preprocess

Split = Literal["train", "val", "test"]
Images = tuple[Tensor, Tensor]  # uint8 (N, 1, 28, 28) and labels, int64 (N,)
FEWEST = 2  # images in a training batch of a process: BatchNorm needs as many


class FashionMNISTDataModule(L.LightningDataModule):
    """Fashion-MNIST: 55,000 training, 5,000 validation, the 10,000 official test images; or data of the same form.

    All arguments are keywords, by theme.

    Args:
        dataset: "fashion_mnist", "mnist", "kmnist", "emnist_letters" (or _balanced, _digits, _mnist, _bymerge,
            _byclass), "idx" for your own four IDX files of MNIST's names in `data_dir`, or "folder" for your own
            images in `data_dir`, in a subfolder for each class; or a name that you have added to `DATASETS`.
        data_dir: folder of the data; by default $VGG_LIGHTNING_DATA or ~/.cache/vgg_lightning.
        classes: names of the classes of your own data, in the order of their labels; by default 0 to 9 for "idx",
            and the sorted names of the subfolders for "folder".
        val_size: number of the training images that are held out for validation, every class in its share, always the
            same ones; 0 trains on all. By default 5,000, of your own data a tenth.
        image_size: height and width in pixels that the network sees. 28 to 32 adds a black frame, more enlarges.
        in_channels: channels of a batch; the grey channel is repeated.
        normalize: subtract the mean and divide by the standard deviation of the training images.
        mean: mean of the pixels of the training images, scaled to 0..1; by default it is computed.
        std: their standard deviation.
        batch_size: images in a batch, over all devices; by default 128, less if your own images are few.
        augment: what to do to the training images, in order: "flip" (left to right, with probability one half),
            "alternating_flip" (in every other epoch), "shift" (by up to 2 pixels, black comes in), "crop" (the same,
            the mirrored edge comes in), "erase", "cutout", "affine", "tone", "randaugment", "photo" (what happens in
            photographs); and "mixup" or "cutmix", which mix labels too. Parameters follow after colons: "crop:3",
            "erase:0.5:0.02:0.4"; see docs/recipes.md.
        seed: seed of the order and of the augmentation; by default that of seed_everything.
        on_device: keep the images in the memory of the training GPU, so that no batch is copied.
        predict_path: your own images for `predict`: a file, or a folder with everything below it; by default
            the official test images are predicted.

    Raises:
        UserError: if an option is out of its range.
    """

    class_names: Sequence[str] = CLASSES

    def __init__(
        self,
        *,
        # data set
        dataset: DatasetName | str = "fashion_mnist",
        data_dir: str | None = None,
        classes: list[str] | None = None,
        val_size: int | None = None,
        # images
        image_size: int = 32,
        in_channels: int = 1,
        normalize: bool = True,
        mean: float | None = None,
        std: float | None = None,
        # batches
        batch_size: int | None = None,
        augment: list[str] | None = None,
        seed: int | None = None,
        on_device: bool = True,
        # prediction
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
        if not known.own:
            self._fill(Sizes())
        self._preprocess = self._make_preprocess()
        self._preprocess.provisional = None in (self.hparams["mean"], self.hparams["std"])
        self.augment = self._augment(self.hparams["mean"])
        self.predict_path = predict_path
        self.own_pictures: Found | None = None
        self.prepared: Prepared | None = None
        self._splits: dict[Split, Images] = {}
        self._train_loader: BatchLoader | None = None
        self._resume_at: dict[str, int] = {}
        self._advised = False

    def __getstate__(self) -> dict[str, Any]:
        """Leave the Trainer out of copies, those for another process among them, as a LightningModule does."""
        return {**self.__dict__, "trainer": None}

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input of the network of uint8 images."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, preprocess: Preprocess) -> None:
        """Prepare images as a trained model does; the options then say so."""
        self._preprocess = preprocess
        self.hparams["normalize"] = preprocess.normalize
        if preprocess.normalize:
            self.hparams["mean"], self.hparams["std"] = preprocess.mean, preprocess.std
            self.augment = self._augment(preprocess.mean)

    @property
    def seed(self) -> int:
        """The seed of the order and of the augmentation."""
        return int(self.hparams["seed"] or 0)

    def prepare_data(self) -> None:
        """Fetch and verify the files, once, unless own images are predicted. Raises UserError if no source has them."""
        if self._predicts_own() or self.prepared is not None:
            return
        self.prepared = prepare(self.data_dir, self.hparams["dataset"], self.class_names)

    def setup(self, stage: str) -> None:
        """Read the splits that `stage` ("fit", "validate", "test", "predict") needs into memory, once."""
        if stage == "fit":
            self._resume_at = {}  # of a fit before; that of a checkpoint comes later
        if stage == "predict" and self.predict_path is not None:
            self.own_pictures = self.own_pictures or find_pictures(self.predict_path)
            return
        if None in (self.hparams["val_size"], self.hparams["batch_size"]):
            counts = training_counts(self.data_dir, self.hparams["dataset"], self.class_names)
            self._fill(Sizes.of(counts, self.hparams["val_size"], self.hparams["batch_size"]))
        if stage == "fit" and self.trainer is not None and not self._advised:
            self._advised = True
            advise(self.hparams, self.trainer.lightning_module)
        if stage in ("fit", "validate") and "train" not in self._splits:
            images, labels = self._load("train")
            train, val = stratified_split(labels, self.hparams["val_size"])
            if stage == "fit" and len(train) < FEWEST:
                left = f"val_size {len(val)} leaves {len(train)} of {len(labels)} images for training"
                raise UserError(f"{left}: {option('data.val_size')} takes at most {max(len(labels) - FEWEST, 0)}")
            self._normalize_by(images)
            self._splits["train"] = images[train], labels[train]
            self._splits["val"] = images[val], labels[val]
            tell_of_lost_classes(labels, labels[train], self.class_names, self.hparams["val_size"])
        if stage in ("test", "predict") and "test" not in self._splits:
            if self.hparams["normalize"] and None in (self.hparams["mean"], self.hparams["std"]):
                self._normalize_by(self._load("train")[0])
            self._splits["test"] = self._load("test")

    def images(self, split: Split) -> Images:
        """Return all uint8 images (N, 1, 28, 28) and labels (N,) of "train", "val" or "test"."""
        if split not in self._splits:
            self.prepare_data()
            self.setup("test" if split == "test" else "fit")
        return self._splits[split]

    def pictures(self, split: Split) -> Images:
        """Return `images(split)`: the former name of this method."""
        return self.images(split)

    def part(self, split: Split, batches: float) -> Part:
        """Return what is read of a split, once it is set up, in so many batches."""
        total = len(self._splits[split][1])
        seen = int(min(batches * self.hparams["batch_size"], total))
        known = DATASETS[self.hparams["dataset"]]
        if split != "test":
            return Part.of(seen, total, "training images" if split == "train" else "validation images")
        if known.own:
            where = self.hparams["dataset"] if known.kind else self.data_dir
            return Part.of(seen, total, "held-out images", f" of {printable(str(where))}")
        found = Part.of(seen, total, "official test images")
        return found._replace(text="the official test images") if found.is_whole else found

    def train_dataloader(self) -> BatchLoader:
        """Return a resumable loader in a seeded order, or in a fixed one if the Trainer overfits some batches."""
        self._train_loader = self._loader("train", not self._overfits(), self._limit("train"))
        if self._resume_at:
            self._train_loader.load_state_dict(self._resume_at)
        return self._train_loader

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation loader, or none if `val_size` is 0."""
        return self._loader("val", limit=self._limit("val")) if self.hparams["val_size"] else []

    def test_dataloader(self) -> BatchLoader:
        """Return the loader of the test images."""
        return self._loader("test", limit=self._limit("test"))

    def predict_dataloader(self) -> BatchLoader | PictureLoader:
        """Return the loader of your own images if there is a `predict_path`, else of the official test images."""
        if self.own_pictures is not None:
            return PictureLoader(self.own_pictures, self.hparams["batch_size"])
        return self._loader("test", limit=self._limit("predict"))

    def state_dict(self) -> dict[str, int]:
        """Return where the training loader stands.

        Lightning saves it too, but does not restore it when the schedule has asked how long a run is: the loader
        is then there before the checkpoint is read.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next training loader resume from there."""
        if state_dict:
            place_of(state_dict)
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

    def _fill(self, sizes: Sizes) -> None:
        """Take the sizes that nobody said."""
        for name in ("val_size", "batch_size"):
            if self.hparams[name] is None:
                self.hparams[name] = getattr(sizes, name)

    def _make_preprocess(self) -> Preprocess:
        mean, std = self.hparams["mean"], self.hparams["std"]  # of own images not known before they are read
        size, normalize, channels = (self.hparams[name] for name in ("image_size", "normalize", "in_channels"))
        return Preprocess(size, normalize, channels, MEAN if mean is None else mean, STD if std is None else std)

    def _normalize_by(self, images: Tensor) -> None:
        """Take mean and standard deviation from the training images, unless they are known."""
        if None not in (self.hparams["mean"], self.hparams["std"]):
            return
        mean, std = mean_and_std(images)
        self.augment = self._augment(mean)
        if self.hparams["normalize"]:
            self.hparams["mean"], self.hparams["std"] = mean, std
            self.preprocess.mean, self.preprocess.std = mean, std  # in place: somebody may hold it already
            self.preprocess.provisional = False

    def _augment(self, mean: float | None) -> Augment:
        fill = FILL if mean is None else round(255 * mean)
        return Augment(self.hparams["augment"] or [], len(self.class_names), fill)

    def _predicts_own(self) -> bool:
        predicts = self.trainer is not None and self.trainer.state.fn == TrainerFn.PREDICTING
        return predicts and self.predict_path is not None

    def _overfits(self) -> bool:
        return bool(getattr(self.trainer, "overfit_batches", 0))

    def _loader(self, split: Split, shuffle: bool = False, limit: float = 1.0) -> BatchLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        images, labels = self._splits[split]
        if self.trainer and self.hparams["on_device"]:
            device = self.trainer.strategy.root_device
            images, labels = images.to(device), labels.to(device)
        fewest = FEWEST if split == "train" else 1  # so that no process is without an image
        size, fixed = self.hparams["batch_size"], part_order(self._splits[split][1], self.hparams["batch_size"], limit)
        loader = BatchLoader(images, labels, size, shuffle, self.seed, rank, world_size, fewest, fixed)
        loader.augment = (self.hparams["augment"] or []) if split == "train" else []
        loader.preprocessing = self.preprocess.describe()
        return loader

    def _limit(self, stage: str) -> float:
        """Return how much of a split the Trainer reads: a share of it, or a whole number of batches."""
        limit: float = getattr(self.trainer, f"limit_{stage}_batches", 1.0)
        return limit
