"""The card of an exported model: its options, the preparation of images, and its measured accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgg_lightning.base.options import LONGEST
from vgg_lightning.base.versions import versions
from vgg_lightning.loading.opened import FORMAT
from vgg_lightning.run.checkpoints.read import sha256_of
from vgg_lightning.run.folders import run_folder_of

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier

RESULTS = ("test_acc", "test_acc_tta", "test_loss", "val_acc", "val_acc_tta", "val_loss")
MEASURED = ("epochs", "steps", "device", "precision", "data_checksums")


def card_of_model(checkpoint: Path, classifier: Classifier, data: dict[str, Any]) -> dict[str, Any]:
    """Return the card of a classifier.

    Args:
        checkpoint: the file that it was loaded from.
        classifier: loaded from it.
        data: the options of the data in it.
    """
    preprocess, options = classifier.preprocess, dict(classifier.hparams)
    results = results_of(checkpoint)
    return {
        "format": FORMAT,
        "network": options["network"],
        "options": options,
        "class_names": list(classifier.class_names),
        "parameters": sum(p.numel() for p in classifier.network.parameters()),
        "preprocessing": {
            "pictures": "uint8 (N, 1, 28, 28), light on black",
            "image_size": preprocess.image_size,
            "in_channels": preprocess.in_channels,
            "normalize": preprocess.normalize,
            "mean": preprocess.mean if preprocess.normalize else 0.0,
            "std": preprocess.std if preprocess.normalize else 1.0,
        },
        "views": "one" if options["tta"] == "none" else f"logits averaged over the image and its {options['tta']}",
        "results": {name: float(results[name]) for name in RESULTS if results.get(name) is not None} or None,
        "measured": _measured(results, data) if results else None,
        "checkpoint": {"file": checkpoint.name, "sha256": sha256_of(checkpoint)},
        "versions": versions(),
    }


def results_of(checkpoint: Path) -> dict[str, Any]:
    """Return results.json if it is that of this very checkpoint, else nothing."""
    run = run_folder_of(checkpoint) or checkpoint.parent
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        if (run / results["checkpoint"]).resolve() != checkpoint.resolve():
            return {}
        return dict(results) if all(isinstance(results.get(name), float | None) for name in RESULTS) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _measured(results: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return how the results were measured."""
    return {
        "by": "vgg-lightning fit: one view of each image; names that end in _tta: two views",
        "test": "images that no training and no choice of a checkpoint saw",
        **{name: str(results[name])[:LONGEST] for name in ("tested_on", "validated_on") if results.get(name)},
        "dataset": data.get("dataset"),
        **{name: results.get(name) for name in MEASURED},
    }
