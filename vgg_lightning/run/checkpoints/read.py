"""Read checkpoint files safely: verified first, then opened as plain values and tensors only."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_regular
from vgg_lightning.run.checkpoints.seal import damage_of

Checkpoint = dict[str, Any]


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint: every checksum in it verified, tensors and plain values only.

    Raises:
        UserError: if the file is damaged, or is no checkpoint with weights and options.
    """
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
        with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
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
