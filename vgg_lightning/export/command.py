"""Write a model in a format for other programs: safetensors, ONNX, int8 ONNX or a torch.export archive."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options import without_group
from vgg_lightning.base.text import install_line, say

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule

OPTIONS = ("--format", "--output", "--overwrite", "--data_dir", "--help")


class Model(NamedTuple):
    """What is exported: a classifier, its card, and how to get at the images that it was trained on."""

    classifier: Classifier
    card: dict[str, Any]
    data: Callable[[], FashionMNISTDataModule]


class Format(NamedTuple):
    """A form of a model: the end of its files' names, what it is, the packages it needs, and what writes it."""

    suffix: str
    about: str
    packages: tuple[str, ...]
    write: Callable[[Model, Path], list[Path]]


def _safetensors(model: Model, file: Path) -> list[Path]:
    from vgg_lightning.export.safetensors import write

    return write(model.classifier, model.card, file)


def _onnx(model: Model, file: Path) -> list[Path]:
    from vgg_lightning.export.onnx import write

    return write(model.classifier, model.card, file)


def _int8(model: Model, file: Path) -> list[Path]:
    from vgg_lightning.export.int8 import write

    return write(model.classifier, model.card, file, model.data())


def _program(model: Model, file: Path) -> list[Path]:
    from vgg_lightning.export.program import write

    return write(model.classifier, model.card, file)


ONNX = ("onnx", "onnxscript", "onnxruntime")
FORMATS: dict[str, Format] = {
    "safetensors": Format(".safetensors", "weights alone, and a card", ("safetensors",), _safetensors),
    "onnx": Format(".onnx", "for ONNX Runtime and others, with the file that prepares images", ONNX, _onnx),
    "onnx-int8": Format(".onnx", "the same in 8-bit numbers, smaller and faster on a CPU", ONNX, _int8),
    "pt2": Format(".pt2", "for torch.export.load", (), _program),
}


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of the project's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"export: {message}; see vgg-lightning export --help")


def main(args: list[str]) -> int:
    """Run `vgg-lightning export` and return the exit code.

    Raises:
        UserError: a wrong option, a checkpoint that cannot be opened, a place that cannot be written.
    """
    options, extra = parser().parse_known_args(without_group("data", args))
    if extra:
        raise UserError(f"option {extra[0]} is unknown{nearest(extra[0], OPTIONS)}")
    if options.format not in FORMATS:
        raise UserError(
            f"--format {options.format!r} is unknown{nearest(options.format, FORMATS)}: use one of {', '.join(FORMATS)}"
        )
    written = export(options.checkpoint, options.format, options.output, options.overwrite, options.data_dir)
    for file in written:
        say(f"written: {file} ({file.stat().st_size:,} bytes)")
    return 0


def export(
    source: str | Path,
    form: str,
    output: str | Path | None = None,
    overwrite: bool = False,
    data_dir: str | Path | None = None,
) -> list[Path]:
    """Write the model of a checkpoint or run folder in another form.

    Args:
        source: a checkpoint, or a run folder, whose best checkpoint is taken.
        form: a key of `FORMATS`.
        output: the file to write; by default model.FORMAT here.
        overwrite: replace existing files.
        data_dir: the data folder, for onnx-int8, which looks at training images and is tested.

    Returns:
        The files written.

    Raises:
        UserError: if a package is missing, the place cannot be written, or the checkpoint cannot be opened.
    """
    _check_packages(form)
    file = Path(output or f"model{FORMATS[form].suffix}").expanduser()
    _check_place(file, FORMATS[form].suffix, overwrite)
    return FORMATS[form].write(_model(source, data_dir), file)


def _model(source: str | Path, data_dir: str | Path | None) -> Model:
    from vgg_lightning.classifier import Classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule
    from vgg_lightning.export.card import card_of_model
    from vgg_lightning.loading.load import model_of, open_checkpoint
    from vgg_lightning.loading.run_data import data_of
    from vgg_lightning.run.checkpoints.read import one_launch

    with one_launch():
        opened = open_checkpoint(source, Classifier)
        classifier, options = model_of(opened, Classifier), data_of(opened)
        card = card_of_model(opened.file, classifier, options)
    options |= {"data_dir": str(data_dir)} if data_dir else {}
    return Model(classifier, card, lambda: FashionMNISTDataModule(**options))


def _check_packages(form: str) -> None:
    for package in FORMATS[form].packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--format {form} needs the package {package}: {install_line('export')}")


def _check_place(file: Path, suffix: str, overwrite: bool) -> None:
    """Refuse, before the work, a file that cannot be written or that is there already."""
    if file.is_dir():
        raise UserError(f"--output {file} is a folder: give a file in it, such as {file / f'model{suffix}'}")
    if file.suffix != suffix:
        raise UserError(f"--output {file} does not end in {suffix}, the name of the format")
    if not file.parent.is_dir():
        raise UserError(f"--output {file}: there is no folder {file.parent}")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"--output {file}: the folder {file.parent} cannot be written; choose another place")
    for there in (file, file.with_suffix(".json")):
        if not overwrite and there.exists() and (there == file or suffix == ".safetensors"):
            raise UserError(f"--output {there} exists: add --overwrite to replace it, or choose another name")
    if suffix == ".onnx" and not overwrite:
        from vgg_lightning.export.preparation import is_ours, preparation_of

        if (beside := preparation_of(file)).exists() and not is_ours(beside):
            raise UserError(
                f"--output {file}: {beside}, the file that prepares images, is another one there: "
                "add --overwrite to replace it, or choose another folder"
            )


def parser() -> _Parser:
    """Return the parser of the subcommand."""
    own = _Parser(prog="vgg-lightning export", description=__doc__, allow_abbrev=False)
    own.add_argument("checkpoint", help="a checkpoint file or a run folder")
    about = "; ".join(f"{name}: {form.about}" for name, form in FORMATS.items())
    own.add_argument("--format", default="safetensors", metavar="FORMAT", help=f"{about} (default: %(default)s)")
    own.add_argument("--output", metavar="FILE", help="the file to write (default: model.FORMAT in this folder)")
    own.add_argument("--overwrite", action="store_true", help="replace existing files")
    own.add_argument(
        "--data_dir",
        metavar="DIR",
        help="the data folder, for onnx-int8 (default: that of the run, else the default one)",
    )
    return own
