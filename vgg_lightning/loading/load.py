"""Open checkpoints safely: verified first, then read as plain values and tensors only."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.classifier import Classifier
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sources.catalogue import MEAN, STD
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.export.safetensors import SUFFIX, read_shared
from vgg_lightning.loading.options import checked_options, fits
from vgg_lightning.run.checkpoints.seal import damage_of

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

    Args:
        file: a checkpoint, or a .safetensors file that `vgg-lightning export` wrote.

    Raises:
        UserError: if the file is damaged, is no checkpoint, or holds another model.
    """
    if file.suffix == SUFFIX:
        return read_shared(file)
    _check_archive(file)
    try:
        if damage := damage_of(file):
            raise UserError(f"{file} is damaged or no checkpoint: {damage}; use another one")
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except Exception as error:  # whatever a hostile file makes the reader do wrong
        raise UserError(f"{file} is refused: it holds more than tensors and plain values, or is damaged") from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters"} <= checkpoint.keys():
        raise UserError(f"{file} is not a checkpoint of vgg_lightning: it has no weights or no options")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not all(
        type(k) is str and type(v) is torch.Tensor and v.layout == torch.strided for k, v in weights.items()
    ):
        raise UserError(f"{file} is refused: its weights are not a table of names and tensors")
    return checkpoint


def _check_archive(file: Path) -> None:
    """Refuse a small file that unpacks to a huge one."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise UserError(f"{file} is refused: a checkpoint is not compressed")
            if sum(part.file_size for part in parts) > file.stat().st_size:
                raise UserError(f"{file} is refused: its parts are larger than the file")
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file} is not a checkpoint, or is damaged: use another one") from error


def model_options(checkpoint: Checkpoint) -> dict[str, Plain]:
    """Return the options of the model in a checkpoint. Raises UserError if they are not a Classifier's."""
    return checked_options(checkpoint["hyper_parameters"], Classifier)


def data_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the data in a checkpoint, empty if it was trained on other data."""
    options = checked_options(checkpoint.get("datamodule_hyper_parameters", {}), FashionMNISTDataModule)
    if not options:
        return {}
    names = checkpoint.get("class_names")
    # Checkpoints of the first version do not say by what their pictures were normalised: it was always this.
    old = {"mean": MEAN, "std": STD, **({"classes": names} if fits(names, list[str]) else {})}
    return {**old, **options}


def load_classifier(path: str | Path, map_location: str | torch.device = "cpu") -> Classifier:
    """Open a run folder, a checkpoint or a .safetensors file as a Classifier in evaluation mode, ready to `predict`.

    Nothing that the file names is imported or run, and its options are held against its weights before
    anything is built from them.

    Args:
        path: a run folder (its best checkpoint is taken), a checkpoint file, or a .safetensors file with its card.
        map_location: the device to put it on.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file)
    classifier = Classifier(**model_options(checkpoint))  # type: ignore[arg-type]
    try:
        classifier.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is refused: its weights do not fit its own options") from error
    classifier.class_names = class_names_of(checkpoint, classifier)
    data = data_options(checkpoint)
    if data:
        size, channels = classifier.hparams["image_size"], classifier.hparams["in_channels"]
        if (data.get("image_size", size), data.get("in_channels", channels)) != (size, channels):
            raise UserError(f"{file} is refused: its pictures have another size than its network takes")
        mean, std = (data.get(name) for name in ("mean", "std"))
        classifier.preprocess = Preprocess(
            size, data.get("normalize", True), channels, MEAN if mean is None else mean, STD if std is None else std
        )
    return classifier.to(map_location).eval()


def check_shapes(checkpoint: Checkpoint, file: Path) -> None:
    """Raise UserError unless the weights are those of a network with the checkpoint's own options.

    The network is built without memory, so options of absurd sizes cost nothing.
    """
    options = model_options(checkpoint)
    try:
        with torch.device("meta"):
            skeleton = Classifier(**options).state_dict()  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:
        raise UserError(f"{file} is refused: no network has its options") from error
    has = {name: value.shape for name, value in checkpoint["state_dict"].items()}
    for name, value in skeleton.items():
        if has.get(name) != value.shape:
            found = f"has the shape {tuple(has[name])}" if name in has else "is missing"
            raise UserError(f"{file} is refused: {name} {found}, its options ask for {tuple(value.shape)}")
    if extra := has.keys() - skeleton.keys():
        raise UserError(f"{file} is refused: its options have no {min(extra)[:80]!r}")


def class_names_of(checkpoint: Checkpoint, classifier: Classifier) -> list[str]:
    """Return the class names in a checkpoint, one for each class, or numbers if it has none. Raises UserError."""
    names = checkpoint.get("class_names", list(classifier.class_names))
    if not fits(names, list[str]) or len(names) != classifier.hparams["num_classes"]:
        if "class_names" in checkpoint:
            raise UserError("the checkpoint is refused: it does not have one name for each class")
        return [str(i) for i in range(classifier.hparams["num_classes"])]
    return list(names)


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


def _found_near(path: Path) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    patterns = ("*.ckpt", "checkpoints/*.ckpt", "*/checkpoints/*.ckpt", "*/*/checkpoints/*.ckpt")
    near = [file for pattern in patterns for file in folder.glob(pattern)]
    near.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return f": near it are {', '.join(map(str, near[:3]))}" if near else ": train first, with vgg-lightning fit"
