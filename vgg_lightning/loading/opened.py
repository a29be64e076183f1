"""A checkpoint of a classifier, opened once: found, verified, read, its options checked and held against its weights.

The class of the model is an argument here, so that it can itself load weights and a teacher. A model that was handed on
as safetensors is opened in the same way: `model.safetensors` has beside it a card, `model.json`, with network and
options, class names, preprocessing, accuracy, versions, and the SHA-256 of the weights, since safetensors has no
checksum of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints, is_typeddict

import lightning as L
import torch

from vgg_lightning.base.errors import UserError, option
from vgg_lightning.base.files import open_regular, read_regular
from vgg_lightning.base.options import check, fits
from vgg_lightning.base.text import install_line
from vgg_lightning.data.options import CLASSES, MEAN, STD, DataOptions
from vgg_lightning.data.options import OPTIONS as DATA_OPTIONS
from vgg_lightning.data.options import PLACES as DATA_PLACES
from vgg_lightning.data.transforms import Preprocess
from vgg_lightning.networks import NETWORKS, skeleton
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.locate import SHIPPED, find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint, ReadFile, fault_of
from vgg_lightning.training.options import PLACES as MODEL_PLACES
from vgg_lightning.training.options import check_options, network_arguments

NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OTHERS = (torch.int64, torch.bool)  # of counters and marks
OWN_DATA = "FashionMNISTDataModule"  # under which its state is in a checkpoint
OWN_CLASS = ": if a class of your own has saved it, use its load_from_checkpoint"
Plain = str | int | float | bool | None
SHIPPED["reference"] = Path(__file__).parents[1] / "reference" / "best.ckpt"  # of lightning_logs/reference


class UnknownNetworkError(UserError):
    """A checkpoint holds a network of the user's own, whose module has not been imported."""


@dataclass
class Opened(ReadFile):
    """A checkpoint of a classifier whose options and weights fit together.

    Attributes:
        model_options: of the model.
        data_options: of the data, empty if it was trained on other data.
        num_classes: how many classes the network tells apart.
    """

    model_options: dict[str, Plain]
    data_options: dict[str, Any]
    num_classes: int

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, or numbers if it has none. Raises UserError unless there is one for each class."""
        return class_names_of(self.checkpoint, self.num_classes)


def open_checkpoint(
    path: str | Path, owner: type[L.LightningModule], prefer: str = "best", hand_on: bool = False
) -> Opened:
    """Find, verify and read a checkpoint, and hold its options against its weights.

    Args:
        path: a run folder, a checkpoint file, a .safetensors file with its card, or "reference".
        owner: the class of the model.
        prefer: "best" or "last", which of a run folder's two.
        hand_on: it is the checkpoint that this launch is about: keep it for the Trainer, which loads by path.

    Raises:
        UserError: if there is no such checkpoint, or it is damaged or foreign.
    """
    file = find_checkpoint(path, prefer)
    kept = read.handed_on(file)
    if isinstance(kept, Opened):
        return kept
    checkpoint = read_checkpoint(file)
    check_shapes(checkpoint, file, owner)
    options = model_options(checkpoint, owner)
    num_classes = int(_complete(options, owner)["num_classes"])
    class_names_of(checkpoint, num_classes)
    opened = Opened(file, checkpoint, options, data_options(checkpoint), num_classes)
    if hand_on:
        read.hand_on(opened)
    return opened


def read_checkpoint(file: Path, bare: bool = False) -> Checkpoint:
    """Read a checkpoint of a classifier: every checksum in it verified, tensors and plain values only.

    Args:
        file: a checkpoint, or a .safetensors file that `vgg-lightning export` wrote.
        bare: whether a file of weights alone will do, as torch.save writes a state dict.

    Raises:
        UserError: if the file is damaged, is no checkpoint, or holds another model.
    """
    checkpoint = read_shared(file) if file.suffix == SUFFIX else read.read_checkpoint(file, bare=bare)
    for name, value in checkpoint["state_dict"].items():
        if value.dtype not in NUMBERS + OTHERS:
            raise UserError(f"{file} is refused: {name[:80]} is of the type {str(value.dtype).removeprefix('torch.')}")
    return checkpoint


def model_options(checkpoint: Checkpoint, owner: type[L.LightningModule]) -> dict[str, Plain]:
    """Return the options of the model in a checkpoint. Raises UserError if they are not those of the class `owner`."""
    return checked_options(checkpoint["hyper_parameters"], owner)


def data_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the data in a checkpoint; of another data module, those that have the same meaning."""
    found, names = checkpoint.get("datamodule_hyper_parameters", {}), checkpoint.get("class_names")
    if "preprocessing" in checkpoint and OWN_DATA not in checkpoint and isinstance(found, dict):
        hints = get_type_hints(DataOptions)
        known = {name: value for name, value in found.items() if name in hints and fits(value, hints[name])}
        found = known | checked_options(checkpoint["preprocessing"], DataOptions)
    options = checked_options(found, DataOptions)
    if not options:
        return {}
    # Checkpoints of the first version do not say by what their images were normalised: it was always this.
    old = {"mean": MEAN, "std": STD, **({"classes": names} if fits(names, list[str]) else {})}
    try:
        check("data", {name: DATA_OPTIONS[name] for name in ("mean", "std") if name in options}, options)
    except UserError as error:
        raise UserError(f"the checkpoint is refused: {error}") from error
    return {**old, **options}


def preprocess_of(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Preprocess | None:
    """Return how the images of a checkpoint are prepared for a model with these options; None if it does not say.

    Raises:
        UserError: if they are of another size than the model takes.
    """
    data = data_options(checkpoint)
    data |= checked_options(checkpoint.get("preprocessing", {}), DataOptions)
    if not data:
        return None
    size, channels = options["image_size"], options["in_channels"]
    if (data.get("image_size", size), data.get("in_channels", channels)) != (size, channels):
        raise UserError("the checkpoint is refused: its images have another size than its network takes")
    mean, std = (data.get(name) for name in ("mean", "std"))
    normalize = data.get("normalize", True)
    return Preprocess(size, normalize, channels, MEAN if mean is None else mean, STD if std is None else std)


def check_shapes(checkpoint: Checkpoint, file: Path, owner: type[L.LightningModule]) -> None:
    """Raise UserError unless the weights are those of a network with the checkpoint's own options.

    The network is built without memory, so options of absurd sizes cost nothing. A class of the user's own may hold
    more than the network.
    """
    options = _complete(model_options(checkpoint, owner), owner)
    network = options["network"]
    if network not in NETWORKS:
        remedy = f"{option('import')} the module that adds it"
        raise UnknownNetworkError(f"{file} holds the network {network[:80]!r}, which is unknown here: {remedy}")
    try:
        check_options(options)
        weights = _built(owner, options).state_dict()
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:
        raise UserError(f"{file} is refused: no network has its options") from error
    weights = {f"network.{name}": value for name, value in weights.items()}
    found = checkpoint["state_dict"]
    has = {name: value.shape for name, value in found.items()}
    for name, value in weights.items():
        if name in found and found[name].dtype not in (NUMBERS if value.is_floating_point() else [value.dtype]):
            raise UserError(f"{file} is refused: {name} is of the type {str(found[name].dtype).removeprefix('torch.')}")
        if has.get(name) != value.shape:
            what = f"has the shape {tuple(has[name])}" if name in has else "is missing"
            asked = f"{name} {what}, its options ask for {tuple(value.shape)}"
            raise UserError(f"{file} is refused: {asked}{'' if name in has else OWN_CLASS}")
    checked = "" if owner is _builders(owner)[-1] else "network."
    if extra := {name for name in has.keys() - weights.keys() if name.startswith(checked)}:
        raise UserError(f"{file} is refused: its options have no {min(extra)[:80]!r}{OWN_CLASS}")


def _builders(owner: type[L.LightningModule]) -> list[type]:
    """Return the classes that say how the network is built: a class of the user's own, if any, before ours."""
    return [base for base in owner.__mro__ if "build" in vars(base)]


def _built(owner: type[L.LightningModule], options: dict[str, Any]) -> torch.nn.Module:
    """Return the network that a class builds of options, without memory."""
    if len(_builders(owner)) == 1:
        return skeleton(**network_arguments(options))
    bare = owner.__new__(owner)
    L.LightningModule.__init__(bare)
    bare.save_hyperparameters(options)
    with torch.device("meta"):
        network: torch.nn.Module = bare.build()  # type: ignore[operator]
    return network


def class_names_of(checkpoint: Checkpoint, num_classes: int) -> list[str]:
    """Return the class names in a checkpoint, one for each class, or numbers if it has none. Raises UserError."""
    names = checkpoint.get("class_names", list(CLASSES))
    if not fits(names, list[str]) or len(names) != num_classes:
        if "class_names" in checkpoint:
            raise UserError("the checkpoint is refused: it does not have one name for each class")
        return [str(i) for i in range(num_classes)]
    return list(names)


def _complete(options: dict[str, Plain], owner: type[L.LightningModule]) -> dict[str, Any]:
    """Return options with the defaults of those that a checkpoint of an earlier version does not have."""
    return {name: default for name, (default, _) in declared(owner).items()} | options


def declared(owner: type) -> dict[str, tuple[Any, Any]]:
    """Return default and type of the options of a class; where a subclass hands on others (**options), of its bases.

    One without a declared type may be any plain value.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for base in owner.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = [*inspect.signature(base.__init__).parameters.values()][1:]  # type: ignore[misc]
        hints = get_type_hints(base.__init__)  # type: ignore[misc]
        own = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found = {p.name: (p.default, hints.get(p.name, Plain)) for p in own} | found
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return found


# The options in a file from elsewhere: plain values of the declared types, and nothing but them.

# A file that holds a path would make us read or write there.
NEVER_TAKEN = {*MODEL_PLACES, *DATA_PLACES}


def checked_options(found: Any, owner: type, where: str = "the checkpoint") -> dict[str, Any]:
    """Return `found` if it is a table of options of `owner`.

    Args:
        found: the value that a file has for its options.
        owner: the class whose `__init__` takes them, or a TypedDict of them.
        where: what to call the file.

    Raises:
        UserError: for anything else: an unknown name, a value of another type.
    """
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{where} is refused: its options are not a table of names and values")
    options = declared(owner) if not is_typeddict(owner) else {}
    hints = {name: hint for name, (_, hint) in options.items()} or get_type_hints(owner)
    known = hints.keys() - NEVER_TAKEN
    for name, value in found.items():
        if name not in known:
            remedy = "" if is_typeddict(owner) else OWN_CLASS
            raise UserError(f"{where} is refused: {owner.__name__} has no option {name[:80]!r}{remedy}")
        if not fits(value, hints[name]):
            raise UserError(f"{where} is refused: its option {name!r} is not of the type {_name(hints[name])}")
    return dict(found)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


# Models that were handed on: weights as safetensors, which cannot hold code, and a card that says what they are.

FORMAT = "vgg_lightning 1"  # of the card
SUFFIX = ".safetensors"
LARGEST_CARD = 1_000_000  # bytes


def card_of(file: Path) -> Path:
    """Return where the card of a file of weights lies."""
    return file.with_suffix(".json")


def read_shared(file: Path) -> dict[str, Any]:
    """Read weights and card in the form of a checkpoint.

    Raises:
        UserError: if one is missing, or the weights are not those that the card was written for.
    """
    card = _read_card(card_of(file))
    try:
        with open_regular(file) as stream:
            content = stream.read(os.fstat(stream.fileno()).st_size)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise UserError(f"{file} is refused: its checksum is not the one in {card_of(file).name}; fetch both again")
    preprocessing = card.get("preprocessing")
    if not isinstance(preprocessing, dict):
        raise UserError(f"{card_of(file)} is refused: it does not say how images are prepared")
    weights = _parse(content, file)
    if fault := fault_of({"state_dict": weights}, len(content)):
        raise UserError(f"{file} is refused: {fault}")
    return {
        "state_dict": weights,
        "hyper_parameters": card.get("options"),
        "datamodule_hyper_parameters": {
            name: preprocessing.get(name) for name in ("image_size", "normalize", "in_channels", "mean", "std")
        },
        "class_names": card.get("class_names"),
    }


def _read_card(file: Path) -> dict[str, Any]:
    try:
        card = json.loads(read_regular(file, LARGEST_CARD).decode())
    except OSError as error:
        raise UserError(f"cannot read {file}, the card of the weights beside it: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not the card of a model: it is not JSON") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{file} is not the card of a model of vgg_lightning: its format is not {FORMAT!r}")
    return card


def _parse(content: bytes, file: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise UserError(f"{file} needs the package safetensors: {install_line('export')}") from error
    try:
        return dict(load(content))
    except Exception as error:  # the parser's own, and torch's for types it does not know
        raise UserError(f"{file} is not a safetensors file, or is damaged") from error
