"""Write a model to share: weights as safetensors, with a card beside them; `loading.safetensors` reads both."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from vgg_lightning.base.files import replace
from vgg_lightning.classifier import Classifier
from vgg_lightning.loading.opened import card_of


def write(classifier: Classifier, card: dict[str, Any], file: Path) -> list[Path]:
    """Write the weights of a classifier to `file` and its card beside it, and return both."""
    from safetensors.torch import save

    content = save({k: v.contiguous() for k, v in classifier.state_dict().items()}, metadata={"format": "pt"})
    card = {**card, "weights": file.name, "sha256": hashlib.sha256(content).hexdigest()}
    replace(file, lambda part: part.write_bytes(content))
    replace(card_of(file), lambda part: part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8"))
    return [file, card_of(file)]
