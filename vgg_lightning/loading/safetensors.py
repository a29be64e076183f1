"""Read models that were handed on: weights as safetensors, which cannot hold code, and a card that says what they are.

`model.safetensors` has beside it `model.json`: network and options, class names, preprocessing, accuracy, versions,
and the SHA-256 of the weights, since safetensors has no checksum of its own.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.base.errors import UserError

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
