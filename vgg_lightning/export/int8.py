"""A classifier as an ONNX model of 8-bit numbers, with its measured accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vgg_lightning.base.files import replace
from vgg_lightning.export.onnx import INPUT, checked_onnx, quiet, runner, serialized
from vgg_lightning.export.preparation import write_beside

if TYPE_CHECKING:
    from vgg_lightning.classifier import Classifier
    from vgg_lightning.data.datamodule import FashionMNISTDataModule

CALIBRATED_ON = 1000  # training images
PERCENTILE = 99.999  # of each activation's values that its 256 steps cover; what lies beyond is cut off
QUANTISED = ("Conv", "Relu", "Gemm", "MatMul", "MaxPool", "Add", "Concat")  # preprocessing and softmax stay in fp32
BATCH = 200


def write(classifier: Classifier, card: dict[str, Any], file: Path, data: FashionMNISTDataModule) -> list[Path]:
    """Write a statically quantised ONNX model, its accuracy and that of fp32 on the test images in its card.

    Args:
        classifier: to export.
        card: of it.
        file: to write.
        data: whose training images decide on the ranges of the numbers.
    """
    fp32 = checked_onnx(classifier, file)
    images = spread(data.images("train")[0], CALIBRATED_ON)
    int8 = quantised(fp32, images)
    pictures, labels = data.images("test")
    before, after = (accuracy(runner(m.SerializeToString()), pictures, labels) for m in (fp32, int8))
    print(f"test accuracy: int8 {100 * after:.2f} %, fp32 {100 * before:.2f} %, on {len(labels):,} images")
    content = serialized(int8, {**card, "int8": _facts(before, after, len(labels), len(images))})
    replace(file, lambda part: part.write_bytes(content))
    return [file, *write_beside(file)]


def quantised(proto: Any, images: Tensor) -> Any:
    """Return an onnx.ModelProto with 8-bit weights, a scale for each channel, and 8-bit activations.

    Args:
        proto: the model in fp32.
        images: uint8 (N, 1, 28, 28) on which the activations' ranges are found.
    """
    import onnx
    from onnxruntime import quantization as q

    with tempfile.TemporaryDirectory() as folder, quiet():
        source, prepared, target = (str(Path(folder) / name) for name in ("fp32.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(proto, source)
        q.shape_inference.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        q.quantize_static(
            prepared,
            target,
            _reader(images),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=list(QUANTISED),
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=q.CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
        )
        return onnx.load(target)


def spread(images: Tensor, count: int) -> Tensor:
    """Return `count` of the images, from all parts of the data and always the same ones, or all if they are fewer."""
    return images[:: max(1, len(images) // count)][:count]


def accuracy(run: Callable[[Tensor], list[Any]], images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a runner (see `onnx_file.runner`) tells right."""
    found = [torch.from_numpy(run(chunk)[0]).argmax(dim=1) for chunk in torch.split(images, BATCH)]
    return float((torch.cat(found) == labels).double().mean())


def _reader(images: Tensor) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    # The percentiles are taken over arrays of one shape, so a last batch that is smaller is left out.
    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            size = min(BATCH, len(images))
            self._chunks: Iterator[Tensor] = iter(torch.split(images[: len(images) // size * size], size))

        def get_next(self) -> dict[str, Any] | None:
            chunk = next(self._chunks, None)
            return None if chunk is None else {INPUT: chunk.numpy()}

    return Reader()


def _facts(before: float, after: float, tested: int, calibrated: int) -> dict[str, Any]:
    import onnxruntime

    return {
        "test_acc": after,
        "test_acc_fp32": before,
        "measured": f"by ONNX Runtime {onnxruntime.__version__} on {tested:,} test images at the export",
        "calibrated": f"on {calibrated:,} training images; {PERCENTILE} % of the activations are covered",
    }
