"""A classifier as an ONNX model, preprocessing included, checked against ONNX Runtime before it is written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vgg_lightning.base.files import replace
from vgg_lightning.export.preparation import write_beside
from vgg_lightning.export.program import PictureModel, check_same, example
from vgg_lightning.version import __version__

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier

INPUT, OUTPUTS = "images", ("logits", "probabilities")


def write(classifier: Classifier, card: dict[str, Any], file: Path) -> list[Path]:
    """Write an ONNX model with class names and card in its metadata, and beside it what prepares images for it."""
    content = serialized(checked_onnx(classifier, file), card)
    replace(file, lambda part: part.write_bytes(content))
    return [file, *write_beside(file)]


def checked_onnx(classifier: Classifier, file: Path) -> Any:
    """Return the onnx.ModelProto of a classifier. Raises UserError if ONNX Runtime answers otherwise than it.

    Args:
        classifier: to export.
        file: that is to be written, for the message.
    """
    model = PictureModel(classifier)
    proto = to_onnx(model)
    run = runner(proto.SerializeToString())
    check_same(model, lambda images: map(torch.from_numpy, run(images)), file)
    return proto


def to_onnx(model: PictureModel) -> Any:
    """Return the onnx.ModelProto of a model, for any number of images."""
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.onnx.export(
            model,
            (example(2),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    proto.producer_name, proto.producer_version = "vgg_lightning", __version__
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del part.metadata_props[:]  # where in which file of this machine each step stood
    for initializer in proto.graph.initializer:
        del initializer.metadata_props[:]
    return proto


def serialized(proto: Any, card: dict[str, Any]) -> bytes:
    """Return the bytes of a model with its card: the same ones for the same model and card."""
    import onnx

    onnx.helper.set_model_props(
        proto, {"class_names": json.dumps(card["class_names"]), "card": json.dumps(card, indent=2)}
    )
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def runner(content: bytes) -> Callable[[Tensor], list[Any]]:
    """Return a function from uint8 images (N, 1, 28, 28) to logits and probabilities, by ONNX Runtime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: list(session.run(list(OUTPUTS), {INPUT: images.numpy()}))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep off the screen what exporter and quantiser say of their progress."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
