"""The file that prepares images, copied beside an ONNX model: a program that opens the model needs nothing else."""

from __future__ import annotations

from pathlib import Path

from vgg_lightning.base.files import replace
from vgg_lightning.data.images import prepare_image

SOURCE = Path(prepare_image.__file__)


def preparation_of(model: Path) -> Path:
    """Return where the file that prepares images for a model lies."""
    return model.with_name(SOURCE.name)


def is_ours(file: Path) -> bool:
    """Return whether a file is that of this version already."""
    return file.is_file() and file.read_bytes() == SOURCE.read_bytes()


def write_beside(model: Path) -> list[Path]:
    """Write the file beside a model, unless it lies there already, and return what was written."""
    file = preparation_of(model)
    if is_ours(file):
        return []
    replace(file, lambda part: part.write_bytes(SOURCE.read_bytes()))
    return [file]
