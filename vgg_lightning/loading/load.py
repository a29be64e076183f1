"""What a model knows of its images, and models and weights out of checkpoints.

The class of the model is an argument, so that it can itself load weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.text import say
from vgg_lightning.data.batches import Batch
from vgg_lightning.data.foreign import ImageData, check_agreement, check_input
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.loading.opened import (
    Opened,
    Plain,
    check_shapes,
    class_names_of,
    data_options,
    model_options,
    open_checkpoint,
    preprocess_of,
    read_checkpoint,
)
from vgg_lightning.networks import fitting_torchvision_weights, is_of_torchvision
from vgg_lightning.networks.vgg import VGG, VGG_BLOCKS
from vgg_lightning.run.checkpoints.locate import find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint, foreign_infinite, infinite_buffers
from vgg_lightning.training.memory import check_one_image

__all__ = [
    "Checkpoint",
    "Known",
    "Opened",
    "Plain",
    "check_shapes",
    "class_names_of",
    "data_options",
    "given",
    "load_model",
    "load_weights",
    "model_of",
    "model_options",
    "numbered",
    "open_checkpoint",
    "read_checkpoint",
    "reopen",
]


class Known(NamedTuple):
    """What a model knows of its images: how they are prepared, and the names of their classes.

    A new model takes both from the data module that it is trained with. From then on they are the model's: they travel
    with its checkpoint, and another data module prepares its images as the model does.

    Attributes:
        preprocess: maps uint8 images (N, 1, 28, 28) to the input of the network.
        class_names: names of the labels, from 0; numbers until data or a checkpoint says more.
        settled: whether they are those of a training, and not to be replaced.
    """

    preprocess: Preprocess
    class_names: Sequence[str]
    settled: bool

    @classmethod
    def of(cls, checkpoint: Checkpoint, options: Mapping[str, Any], preprocess: Preprocess) -> Known:
        """Return what a checkpoint of a model with these options says; files of earlier versions say it elsewhere."""
        names = class_names_of(checkpoint, options["num_classes"])
        return cls(preprocess_of(checkpoint, options) or preprocess, names, True)

    def in_checkpoint(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"class_names": list(self.class_names), "preprocessing": self.preprocess.options()}

    def meet(self, data: object, options: Mapping[str, Any], fit: bool) -> Known:
        """Return what a model and a data module agree on, which the data module then follows.

        Args:
            data: the data module; with what is none, there is nothing to agree on.
            options: of the model.
            fit: whether it is for training, which may give the model other classes.

        Raises:
            UserError: if its images or classes are not those of the model.
        """
        if not isinstance(data, ImageData):
            return self._replace(settled=self.settled or fit)
        check_agreement(data, options)
        preprocess = self.preprocess if self.settled else data.preprocess
        before = self.class_names if self.settled else data.class_names
        names = _agreed_names(list(before), list(data.class_names), numbered(options), fit)
        own, other = preprocess.describe(), data.preprocess.describe()
        if own != other and not data.preprocess.provisional:
            _say(f"images are {own}, as those that the model was trained on; the data alone has them {other}")
        if preprocess is not data.preprocess:
            data.preprocess = preprocess
        return Known(preprocess, names, self.settled or fit)


def numbered(options: Mapping[str, Any]) -> list[str]:
    """Return the names of classes that have none: numbers."""
    return [str(label) for label in range(options["num_classes"])]


def given(batch: Any, preprocess: Preprocess, options: Mapping[str, Any], model: L.LightningModule) -> Batch:
    """Return a batch as a network takes it; uint8 images of a plain loader are prepared as `predict` does it.

    Args:
        batch: a `Batch`; or a pair (images, labels), or for predict alone images, of another loader.
        preprocess: of the model.
        options: of the model.
        model: in training or not.

    Raises:
        UserError: if it is something else, or does not fit the model.
    """
    if isinstance(batch, Batch) and batch.images.is_floating_point():
        return batch
    found = Batch.of(batch)
    if model.training and len(found.images) == 1:
        check_one_image(options)
    if not found.images.is_floating_point():
        found = found._replace(images=preprocess(found.images))
    return check_input(found, options, labelled=not model.trainer.predicting)


def _agreed_names(own: list[str], names: list[str], numbers: list[str], fit: bool) -> list[str]:
    """Return the class names of a model that has met data with others."""
    told = f"the classes of the data are {_first(names)}, the model was trained on {_first(own)}"
    if not fit and own != names and numbers not in (own, names):
        raise UserError(f"{told}: give data of the same classes, in the same order")
    if fit and own not in (names, numbers):
        _say(f"{told}: the model learns the new ones")
    return names if fit else own


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


@rank_zero_only
def _say(line: str) -> None:
    say(line, sys.stderr)


Model = TypeVar("Model", bound=L.LightningModule)


def load_model(
    owner: type[Model],
    path: str | Path,
    map_location: str | torch.device = "cpu",
    strict: bool = True,
    **options: Any,
) -> Model:
    """Open a run folder, a checkpoint or a .safetensors file as a model in evaluation mode.

    Nothing that the file names is imported or run, and its options are held against its weights before
    anything is built from them.

    Args:
        owner: the class of the model; `Classifier`, or one with its attributes.
        path: a run folder (its best checkpoint is taken), a checkpoint file, a .safetensors file with its card, or
            "reference", the longer run of the preset quick that comes with this package.
        map_location: the device to put it on.
        strict: the weights must be those of the network.
        options: to use instead of those in the checkpoint.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    return model_of(open_checkpoint(path, owner), owner, strict, **options).to(map_location)


def model_of(opened: Opened, owner: type[Model], strict: bool = True, **options: Any) -> Model:
    """Build the model of a checkpoint that has been opened. Arguments and errors as those of `load_model`."""
    file, checkpoint = opened.file, opened.checkpoint
    try:
        model: Any = owner(**{**opened.model_options, **options})
    except UserError as error:
        raise error if options else UserError(f"{file} is refused: {error}") from error
    _check_masks(opened.file, checkpoint, model)
    try:
        model.load_state_dict(checkpoint["state_dict"], strict)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is refused: its weights do not fit its own options") from error
    model.on_load_checkpoint(checkpoint)
    loaded: Model = model.eval()
    return loaded


def reopen(
    owner: type[Model],
    lightning: Callable[..., Model],
    checkpoint_path: Any,
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = True,
    **options: Any,
) -> Model:
    """Open a checkpoint as `load_model` does, for `load_from_checkpoint` of a LightningModule; in training mode.

    Args:
        owner: the class of the model.
        lightning: Lightning's own `load_from_checkpoint`, for an open file and for `hparams_file`.
        checkpoint_path: run folder or file, or an open file. Nothing is fetched from an address.
        map_location: the device to put the model on.
        hparams_file: options to use instead of those in the checkpoint; goes to Lightning.
        strict: the weights must be those of the network; True unless given.
        weights_only: always true: nothing in a checkpoint is run.
        options: to use instead of those in the checkpoint.

    Raises:
        UserError: as `load_model`.
    """
    opened = hasattr(checkpoint_path, "read")
    if opened or hparams_file is not None:
        file = checkpoint_path if opened else find_checkpoint(checkpoint_path)
        return lightning(file, map_location, hparams_file, strict, True, **options)
    return load_model(owner, checkpoint_path, map_location or "cpu", strict is not False, **options).train()


def _check_masks(file: Path, checkpoint: Checkpoint, model: L.LightningModule) -> None:
    """Raise UserError for an Inf in what a new model has finite."""
    if name := foreign_infinite(checkpoint, infinite_buffers(model)):
        raise UserError(f"{file} is refused: {name} has an Inf, and the model's own has none")


def load_weights(classifier: L.LightningModule, path: str | Path) -> list[str]:
    """Start `classifier` from the weights of another run, all that have the same name and shape.

    So a network can be fine-tuned with other options or another number of classes. Weights of torchvision's VGG of the
    same depth are taken as `fitting_torchvision_weights` takes them.

    Args:
        classifier: the one to fill.
        path: a run folder (its best checkpoint is taken), a checkpoint file, or "reference"; a file with the state dict
            of torchvision's VGG, or "torchvision", for which torchvision's own file is fetched.

    Returns:
        The names of the parameters that keep their initial values.

    Raises:
        UserError: if the file cannot be opened, or nothing fits.
    """
    fetches = str(path) == TORCHVISION and not Path(path).exists()
    file = torchvision_file(classifier.hparams) if fetches else find_checkpoint(path)
    checkpoint = read_checkpoint(file, bare=True)
    _check_masks(file, checkpoint, classifier)
    source, target = checkpoint["state_dict"], classifier.state_dict()
    network = classifier.hparams["network"]
    named = f"{option('model.weights')} {path}"
    is_theirs, how = is_of_torchvision(source), ""
    if is_theirs:
        if not isinstance(classifier.network, VGG):
            raise UserError(f"{named}: these are weights of torchvision's VGG, and {network} is none")
        try:
            found = fitting_torchvision_weights(classifier.network, source)
        except UserError as error:
            raise UserError(f"{named}: {error}") from error
        source = {f"network.{name}": value for name, value in found.items()}
        how = " of torchvision" + (
            ", filters summed over the colours" if classifier.hparams["in_channels"] == 1 else ""
        )
    fitting = {
        k: v
        for k, v in source.items()
        if k in target and v.shape == target[k].shape and v.is_floating_point() == target[k].is_floating_point()
    }
    left = [name for name in target if name not in fitting]
    if not any(value.ndim > 1 for value in fitting.values()):
        remedy = f": they are for {option('model.ratio')} 1" if is_theirs else ""
        raise UserError(f"{named}: no layer of it fits {network}{remedy}")
    classifier.load_state_dict(fitting, strict=False)
    shown = [*left[:SHOWN], *([f"{len(left) - SHOWN} more"] if len(left) > SHOWN else [])]
    note = f"; {', '.join(shown)} start anew" if left else ""
    say(f"weights: {file}{how}, {len(fitting)} of {len(target)} tensors{note}")
    return left


TORCHVISION = "torchvision"  # names the weights that torchvision has of a network
SHOWN = 8  # names of parameters that start anew


def torchvision_file(options: Mapping[str, Any]) -> Path:
    """Return the file with torchvision's weights for a network with these options, fetched where it is not there yet.

    It lies where torchvision looks for it as well.

    Raises:
        UserError: if torchvision has none, or they cannot be fetched.
    """
    network = options["network"]
    if network not in VGG_BLOCKS:
        raise UserError(f"torchvision has weights of {', '.join(VGG_BLOCKS)}, which {network} is none of")
    from torchvision.models import get_model_weights  # an import of a second

    url: str = next(iter(get_model_weights(network + "_bn" * options["batch_norm"]))).url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), file.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            remedy = f"fetch it elsewhere, and give {option('model.weights')} the file"
            raise UserError(f"{url} cannot be had: {getattr(error, 'reason', error)}; {remedy}") from error
    return file
