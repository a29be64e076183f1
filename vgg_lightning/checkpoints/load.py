"""Open checkpoints safely: verified first, then read as plain values and tensors only."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.checkpoints.digest import damage_of
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.errors import UserError

Plain = str | int | float | bool | None
Checkpoint = dict[str, Any]


def find_checkpoint(path: str | Path, prefer: str = "best") -> Path:
    """Return the checkpoint file that `path` means.

    Args:
        path: a checkpoint file, or a run folder such as `lightning_logs/quick/version_0`.
        prefer: "best" or "last", which of a run folder's two.

    Raises:
        UserError: if there is none; the message names what is near.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.exists():
        raise UserError(f"checkpoint {path} does not exist{_found_near(path)}")
    names = [prefer, *({"best", "last"} - {prefer})]
    candidates = [folder / f"{name}.ckpt" for name in names for folder in (path / "checkpoints", path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"{path} is a folder without checkpoints/best.ckpt{_found_near(path / 'x')}")


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint of a Classifier: every checksum in it verified, tensors and plain values only.

    Raises:
        UserError: if the file is damaged, is no checkpoint, or holds another model.
    """
    try:
        if damage := damage_of(file):
            raise UserError(f"{file} is damaged or no checkpoint: {damage}; use another one")
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, AttributeError, TypeError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is refused: it holds more than tensors and plain values, or is damaged") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise UserError(f"{file} is not a checkpoint of vgg_lightning: it has no weights or no options")
    return checkpoint


def model_options(checkpoint: Checkpoint) -> dict[str, Plain]:
    """Return the options of the model in a checkpoint. Raises UserError if they are not a Classifier's."""
    return _options(checkpoint["hyper_parameters"], Classifier)


def data_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the data in a checkpoint, empty if it was trained on other data."""
    return _options(checkpoint.get("datamodule_hyper_parameters", {}), FashionMNISTDataModule)


def load_classifier(path: str | Path, map_location: str | torch.device = "cpu") -> Classifier:
    """Open a run folder or a checkpoint file as a Classifier in evaluation mode, ready to `predict`.

    Nothing that the file names is imported or run.

    Args:
        path: a run folder (its best checkpoint is taken) or a checkpoint file.
        map_location: the device to put it on.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    classifier = Classifier(**model_options(checkpoint))  # type: ignore[arg-type]
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is refused: its weights do not fit its own options") from error
    classifier.class_names = [str(name) for name in checkpoint.get("class_names", classifier.class_names)]
    data = data_options(checkpoint)
    if data:
        classifier.preprocess = Preprocess(data["image_size"], data["normalize"], data["in_channels"])
    return classifier.to(map_location).eval()


def load_weights(classifier: Classifier, path: str | Path) -> list[str]:
    """Start `classifier` from the weights of another run, all that have the same name and shape.

    So a network can be fine-tuned with other options or another number of classes.

    Args:
        classifier: the one to fill.
        path: a run folder (its best checkpoint is taken) or a checkpoint file.

    Returns:
        The names of the parameters that keep their initial values.

    Raises:
        UserError: if the checkpoint cannot be opened, or nothing fits.
    """
    file = find_checkpoint(path)
    source = read_checkpoint(file)["state_dict"]
    target = classifier.state_dict()
    fitting = {k: v for k, v in source.items() if k in target and v.shape == target[k].shape}
    left = [name for name in target if name not in fitting]
    if not any(value.ndim > 1 for value in fitting.values()):
        raise UserError(f"--model.weights {path}: no layer of it fits {classifier.hparams['network']}")
    classifier.load_state_dict(fitting, strict=False)
    note = f"; {', '.join(left)} start anew" if left else ""
    print(f"weights: {file}, {len(fitting)} of {len(target)} tensors{note}")
    return left


def _options(found: Any, owner: type) -> dict[str, Any]:
    known = inspect.signature(owner).parameters
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError("the checkpoint is refused: its options are not a table of names and values")
    for name, value in found.items():
        if name not in known:
            raise UserError(f"the checkpoint is refused: {owner.__name__} has no option {name!r}")
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(v, Plain) for v in values):
            raise UserError(f"the checkpoint is refused: its option {name!r} is no plain value")
    return dict(found)


def _found_near(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    patterns = ("*.ckpt", "checkpoints/*.ckpt", "*/checkpoints/*.ckpt", "*/*/checkpoints/*.ckpt")
    near = [file for pattern in patterns for file in folder.glob(pattern)]
    near.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return f": near it are {', '.join(map(str, near[:3]))}" if near else ": train first, with vgg-lightning fit"
