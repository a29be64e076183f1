"""Write a model in a form that others can open: safetensors with a card that says what it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from vgg_lightning.errors import UserError, nearest


def _safetensors(checkpoint: dict[str, Any], file: Path, facts: dict[str, Any]) -> list[Path]:
    from vgg_lightning.checkpoints.sharing import write_shared

    return [file, write_shared(checkpoint, file, facts)]


# format -> (the end of its files' names, what writes it and returns the files)
FORMATS: dict[str, tuple[str, Callable[[dict[str, Any], Path, dict[str, Any]], list[Path]]]] = {
    "safetensors": (".safetensors", _safetensors),
}
RESULTS = ("test_acc", "test_acc_tta", "test_loss", "val_acc", "val_acc_tta", "val_loss")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of the project's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"export: {message}; see vgg-lightning export --help")


def main(args: list[str]) -> int:
    """Run `vgg-lightning export` and return the exit code.

    Raises:
        UserError: a wrong option, a checkpoint that cannot be opened, a place that cannot be written.
    """
    options, extra = _parser().parse_known_args(args)
    if extra:
        raise UserError(f"option {extra[0]} is unknown{nearest(extra[0], ('--format', '--output', '--help'))}")
    if options.format not in FORMATS:
        raise UserError(
            f"--format {options.format!r} is unknown{nearest(options.format, FORMATS)}: use one of {', '.join(FORMATS)}"
        )
    for file in export(options.checkpoint, options.format, options.output):
        print(f"written: {file} ({file.stat().st_size:,} bytes)")
    return 0


def export(source: str | Path, form: str, output: str | Path | None = None) -> list[Path]:
    """Write the model of a checkpoint or run folder in another form.

    Args:
        source: a checkpoint, or a run folder, whose best checkpoint is taken.
        form: a key of `FORMATS`.
        output: the file to write; by default model.FORMAT here.

    Returns:
        The files written.
    """
    suffix, write = FORMATS[form]
    file = Path(output or f"model{suffix}").expanduser()
    if file.suffix != suffix:
        raise UserError(f"--output {file} does not end in {suffix}, the name of the format")
    if not file.parent.is_dir():
        raise UserError(f"--output {file}: there is no folder {file.parent}")
    from vgg_lightning.checkpoints.load import find_checkpoint, load_classifier, read_checkpoint

    found = find_checkpoint(source)
    classifier = load_classifier(found)  # which refuses what does not fit together
    checkpoint = {**read_checkpoint(found), "class_names": list(classifier.class_names)}
    return write(checkpoint, file, _facts(found, classifier))


def _facts(checkpoint: Path, classifier: Any) -> dict[str, Any]:
    """Return what a card says beyond options and weights."""
    from vgg_lightning.callbacks.report import versions

    preprocess = classifier.preprocess
    return {
        "parameters": sum(p.numel() for p in classifier.network.parameters()),
        "preprocessing": {
            "pictures": "uint8 (N, 28, 28), light on black",
            "image_size": preprocess.image_size,
            "in_channels": preprocess.in_channels,
            "normalize": preprocess.normalize,
            "mean": preprocess.mean if preprocess.normalize else 0.0,
            "std": preprocess.std if preprocess.normalize else 1.0,
        },
        "results": _results(checkpoint),
        "versions": versions(),
    }


def _results(checkpoint: Path) -> dict[str, float] | None:
    """Return the accuracies in results.json if they are those of this very checkpoint."""
    from vgg_lightning.runs import run_folder_of

    run = run_folder_of(checkpoint)
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8")) if run else {}
        if run is None or (run / results["checkpoint"]).resolve() != checkpoint.resolve():
            return None
        return {name: float(results[name]) for name in RESULTS if results.get(name) is not None}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _parser() -> _Parser:
    parser = _Parser(prog="vgg-lightning export", description=__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", help="a checkpoint file or a run folder")
    parser.add_argument(
        "--format", default="safetensors", metavar="FORMAT", help=f"{', '.join(FORMATS)} (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="FILE", help="the file to write (default: model.FORMAT in this folder)")
    return parser
