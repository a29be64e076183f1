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
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import lightning as L
import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.options import CLASSES, MEAN, STD, DataOptions
from vgg_lightning.data.options import PLACES as DATA_PLACES
from vgg_lightning.networks import skeleton
from vgg_lightning.run.checkpoints import read
from vgg_lightning.run.checkpoints.locate import find_checkpoint
from vgg_lightning.run.checkpoints.read import Checkpoint, ReadFile
from vgg_lightning.training.options import PLACES as MODEL_PLACES
from vgg_lightning.training.options import check_options, network_arguments

Plain = str | int | float | bool | None


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
        path: a run folder, a checkpoint file, or a .safetensors file with its card.
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
    opened = Opened(file, checkpoint, options, data_options(checkpoint), num_classes)
    if hand_on:
        read.hand_on(opened)
    return opened


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint of a classifier: every checksum in it verified, tensors and plain values only.

    Args:
        file: a checkpoint, or a .safetensors file that `vgg-lightning export` wrote.

    Raises:
        UserError: if the file is damaged, is no checkpoint, or holds another model.
    """
    return read_shared(file) if file.suffix == SUFFIX else read.read_checkpoint(file)


def model_options(checkpoint: Checkpoint, owner: type[L.LightningModule]) -> dict[str, Plain]:
    """Return the options of the model in a checkpoint. Raises UserError if they are not those of the class `owner`."""
    return checked_options(checkpoint["hyper_parameters"], owner)


def data_options(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the options of the data in a checkpoint, empty if it was trained on other data."""
    options = checked_options(checkpoint.get("datamodule_hyper_parameters", {}), DataOptions)
    if not options:
        return {}
    names = checkpoint.get("class_names")
    # Checkpoints of the first version do not say by what their pictures were normalised: it was always this.
    old = {"mean": MEAN, "std": STD, **({"classes": names} if fits(names, list[str]) else {})}
    return {**old, **options}


def check_shapes(checkpoint: Checkpoint, file: Path, owner: type[L.LightningModule]) -> None:
    """Raise UserError unless the weights are those of a network with the checkpoint's own options.

    The network is built without memory, so options of absurd sizes cost nothing.
    """
    options = _complete(model_options(checkpoint, owner), owner)
    try:
        check_options(options)
        weights = skeleton(**network_arguments(options)).state_dict()
    except UserError as error:
        raise UserError(f"{file} is refused: {error}") from error
    except Exception as error:
        raise UserError(f"{file} is refused: no network has its options") from error
    weights = {f"network.{name}": value for name, value in weights.items()}
    has = {name: value.shape for name, value in checkpoint["state_dict"].items()}
    for name, value in weights.items():
        if has.get(name) != value.shape:
            found = f"has the shape {tuple(has[name])}" if name in has else "is missing"
            raise UserError(f"{file} is refused: {name} {found}, its options ask for {tuple(value.shape)}")
    if extra := has.keys() - weights.keys():
        raise UserError(f"{file} is refused: its options have no {min(extra)[:80]!r}")


def class_names_of(checkpoint: Checkpoint, num_classes: int) -> list[str]:
    """Return the class names in a checkpoint, one for each class, or numbers if it has none. Raises UserError."""
    names = checkpoint.get("class_names", list(CLASSES))
    if not fits(names, list[str]) or len(names) != num_classes:
        if "class_names" in checkpoint:
            raise UserError("the checkpoint is refused: it does not have one name for each class")
        return [str(i) for i in range(num_classes)]
    return list(names)


def _complete(options: dict[str, Plain], owner: type[L.LightningModule]) -> dict[str, Any]:
    """Return options with the defaults of those that a checkpoint of before does not have."""
    return {name: p.default for name, p in inspect.signature(owner).parameters.items()} | options


# The options in a file from elsewhere: plain values of the declared types, and nothing but them.

# A file that holds a path would make us read or write there.
NEVER_TAKEN = {*MODEL_PLACES, *DATA_PLACES}
LONGEST = 1000  # characters of a string or parts of a list: more is no option of ours


def checked_options(found: Any, owner: type, where: str = "the checkpoint") -> dict[str, Any]:
    """Return `found` if it is a table of options of `owner`.

    Args:
        found: what a file holds in the place of its options.
        owner: the class whose `__init__` takes them, or a TypedDict of them.
        where: what to call the file.

    Raises:
        UserError: for anything else: an unknown name, a value of another type.
    """
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{where} is refused: its options are not a table of names and values")
    hints = get_type_hints(owner if is_typeddict(owner) else owner.__init__)  # type: ignore[misc]
    known = hints.keys() - {"return", *NEVER_TAKEN}
    for name, value in found.items():
        if name not in known:
            raise UserError(f"{where} is refused: {owner.__name__} has no option {name[:80]!r}")
        if not fits(value, hints[name]):
            raise UserError(f"{where} is refused: its option {name!r} is not of the type {_name(hints[name])}")
    return dict(found)


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value is of the type that an option declares; no subclass passes for one."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) is str and value in get_args(hint)
    if get_origin(hint) is list:
        return type(value) is list and len(value) <= LONGEST and all(fits(v, get_args(hint)[0]) for v in value)
    if hint is float:
        return type(value) in (int, float)
    if hint is str:
        return type(value) is str and len(value) <= LONGEST
    return type(value) is hint


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
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise UserError(f"{file} is refused: its checksum is not the one in {card_of(file).name}; fetch both again")
    preprocessing = card.get("preprocessing")
    if not isinstance(preprocessing, dict):
        raise UserError(f"{card_of(file)} is refused: it does not say how pictures are prepared")
    return {
        "state_dict": _parse(content, file),
        "hyper_parameters": card.get("options"),
        "datamodule_hyper_parameters": {
            name: preprocessing.get(name) for name in ("image_size", "normalize", "in_channels", "mean", "std")
        },
        "class_names": card.get("class_names"),
    }


def _read_card(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_CARD:
            raise UserError(f"{file} is refused: it is too large for a card")
        card = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}, the card of the weights beside it: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file} is not the card of a model: it is no JSON") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{file} is not the card of a model of vgg_lightning: its format is not {FORMAT!r}")
    return card


def _parse(content: bytes, file: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise UserError(f"{file} needs the package safetensors: pip install 'vgg-lightning[export]'") from error
    try:
        return dict(load(content))
    except Exception as error:  # the parser's own, and torch's for types it does not know
        raise UserError(f"{file} is not a safetensors file, or is damaged") from error
