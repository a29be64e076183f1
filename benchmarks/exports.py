"""Speed of the exported models beside the classifier in PyTorch: `python -m benchmarks.exports`, on an idle machine.

Each measurement is a process of its own, so that no thread pool waits beside another; the engines take turns.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS = 3
# name -> (options of a VGG-11 with random weights, or None for the reference run; batch sizes)
MODELS: dict[str, tuple[dict[str, Any] | None, tuple[int, ...]]] = {
    "reference": (None, (128, 1)),
    "classic 1/4 32": ({"ratio": 4, "image_size": 32, "hidden_units": 1024}, (128,)),
    "classic 1/1 96": ({"ratio": 1, "image_size": 96}, (32,)),
}
ENGINES = ("eager", "onnx", "onnx-int8")
REFERENCE = Path(__file__).parents[1] / "lightning_logs/reference/version_0"


def prepare(name: str, folder: Path) -> None:
    """Write a model of the table as safetensors, ONNX and int8 ONNX."""
    import torch

    from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
    from vgg_lightning.export import int8
    from vgg_lightning.export import onnx as onnx_file

    options = MODELS[name][0]
    torch.manual_seed(0)
    model = (
        load_classifier(REFERENCE) if options is None else Classifier(network="vgg11", init="kaiming", **options).eval()
    )
    fp32 = onnx_file.checked_onnx(model, folder / "onnx")
    images = int8.spread(FashionMNISTDataModule().images("train")[0], int8.CALIBRATED_ON if options is None else 200)
    (folder / "onnx").write_bytes(fp32.SerializeToString())
    (folder / "onnx-int8").write_bytes(int8.quantised(fp32, images).SerializeToString())
    torch.save((dict(model.hparams), model.state_dict()), folder / "eager")


def milliseconds(engine: str, folder: Path, batch: int) -> float:
    """Return the median time of a batch, measured in this process."""
    run = _eager(folder, batch) if engine == "eager" else _onnx(folder / engine, batch)
    for _ in range(3):
        run()
    times: list[float] = []
    end = time.perf_counter() + 2
    while len(times) < 5 or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def _eager(folder: Path, batch: int) -> Callable[[], object]:
    import torch

    from vgg_lightning import Classifier
    from vgg_lightning.export.program import example

    options, weights = torch.load(folder / "eager", weights_only=True)
    model, images = Classifier(**options).eval(), example(batch)
    model.load_state_dict(weights)

    @torch.inference_mode()
    def run() -> object:
        return model.average(model.preprocess(images)).softmax(1)

    return run


def _onnx(file: Path, batch: int) -> Callable[[], object]:
    from vgg_lightning.export.onnx import runner
    from vgg_lightning.export.program import example

    run, images = runner(file.read_bytes()), example(batch)
    return lambda: run(images)


def main() -> None:
    """Measure every row of the table in turn, and print medians and ranges."""
    for name, (_, batches) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "benchmarks.exports", "prepare", name, folder], check=True)
            for batch in batches:
                times: dict[str, list[float]] = {engine: [] for engine in ENGINES}
                for engine in ENGINES * ROUNDS:
                    command = [sys.executable, "-m", "benchmarks.exports", engine, folder, str(batch)]
                    times[engine].append(float(subprocess.run(command, check=True, capture_output=True).stdout))
                for engine, found in times.items():
                    ratio = statistics.median(times["eager"]) / statistics.median(found)
                    span = f"{min(found):.2f} to {max(found):.2f}"
                    print(f"{name}, batch {batch}, {engine}: {statistics.median(found):.2f} ms ({span}), x {ratio:.1f}")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "prepare":
        prepare(sys.argv[2], Path(sys.argv[3]))
    else:
        print(milliseconds(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
