"""A classifier exported by `vgg-lightning export --format onnx-int8`, on ONNX Runtime. Its accuracy is in its card."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.work import Work

BATCH = 100


def predict(work: Work) -> Callable[[], Any]:
    """Return a function that classifies all test images with the exported model."""
    import onnxruntime

    from vgg_lightning.__main__ import main

    folder = Path(tempfile.mkdtemp(prefix="bench-int8-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--test=false", "--name=int8")
    main(["fit", *work.arguments, *short, "--trainer.default_root_dir", str(folder)])
    run, file = folder / "lightning_logs" / "int8" / "version_0", folder / "model.onnx"
    if main(["export", str(run), "--format", "onnx-int8", "--output", str(file)]):
        raise SystemExit("vgg-lightning export has no format onnx-int8 here")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    chunks = [chunk.numpy() for chunk in torch.split(work.images(train=False)[0], BATCH)]
    name = session.get_inputs()[0].name
    return lambda: [session.run(None, {name: chunk}) for chunk in chunks]
