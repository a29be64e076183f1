"""Whether a CPU computes convolutions in bfloat16 by its own instructions, and rightly: asked of oneDNN, not timed.

torch tells what the processor has. It does not tell what oneDNN makes of it, which ONEDNN_MAX_CPU_ISA can hold back,
nor whether a version of oneDNN has a kernel of that kind for each pass, nor whether its result is right: all three
have failed on some processors. So a few small convolutions are computed, and oneDNN names the kernels that it used.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any

import torch
from torch import Tensor

EMULATED = "this cpu only emulates it, and is faster with 32-true"
PASSES = ("forward_training", "backward_data", "backward_weights")
# What oneDNN calls instruction sets with products of bfloat16; `jit_bf16:avx512_core` converts to float32 and back.
NATIVE = re.compile(r":(avx512_core_bf16|avx512_core_fp16|avx512_core_amx|avx10_\d)")
# Channels in, channels out, size of the filters: of a first layer, of one further inside, of one that mixes channels.
SHAPES = ((1, 16, 3), (16, 32, 3), (32, 16, 1))
TOLERANCE = 2**-6  # of the largest number; rounding the result to bfloat16 takes 2 ** -9


@functools.cache
def fault() -> str:
    """Return why this processor should not train in bfloat16; nothing if it computes it natively and rightly.

    The answer is that of this process: processor, torch and what oneDNN reads of the environment do not change in it.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return EMULATED
    try:
        with _printed() as lines:
            wrong = _wrong_passes()
            kernels = _kernels(lines)
    except (OSError, RuntimeError):
        return EMULATED
    if {name for name, _ in kernels} != set(PASSES) or not all(NATIVE.search(kernel) for _, kernel in kernels):
        return EMULATED
    return f"its convolutions differ from those in float32 on this cpu ({', '.join(wrong)})" if wrong else ""


def _wrong_passes() -> list[str]:
    """Return the passes whose result is not that in float32, once oneDNN has named the kernels of those in bfloat16."""
    draw = torch.Generator().manual_seed(0)  # not the run's
    inputs = []
    for channels, out, size in SHAPES:
        shapes = ((4, channels, 12, 12), (out, channels, size, size), (4, out, 13 - size, 13 - size))
        drawn = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
        inputs.append([tensor.to(memory_format=torch.channels_last) for tensor in drawn])
    with _named():
        found = [_convolve(*tensors) for tensors in inputs]
    wrong = set[str]()
    for tensors, results in zip(inputs, found, strict=True):
        expected = _convolve(*(tensor.float() for tensor in tensors))
        for name, result, right in zip(PASSES, results, expected, strict=True):
            if not (result.float() - right).abs().max() <= TOLERANCE * right.abs().max():  # nor NaN
                wrong.add(name)
    return [name for name in PASSES if name in wrong]


def _convolve(x: Tensor, weight: Tensor, gradient: Tensor) -> list[Tensor]:
    """Return the result of a convolution, and the gradients of its input and of its weights."""
    with torch.inference_mode(False), torch.enable_grad():
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        result = torch.nn.functional.conv2d(x, weight)
        return [result.detach(), *torch.autograd.grad(result, (x, weight), gradient)]


def _kernels(lines: IO[bytes]) -> list[tuple[str, str]]:
    """Return pass and kernel of each convolution that oneDNN has named."""
    lines.seek(0)
    found = []
    for line in lines.read().decode(errors="replace").splitlines():
        words = line.split(",")
        if {"exec", "convolution"} <= set(words) and "bf16" in line:
            kernel, name, *_ = [*words[words.index("convolution") + 1 :], "", ""]
            found.append((name, kernel))
    return found


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Let oneDNN print what it computes, and then what the user has asked for."""
    verbose: Any = torch.backends.mkldnn.verbose
    with verbose(torch.backends.mkldnn.VERBOSE_ON):
        yield
    asked = os.environ.get("ONEDNN_VERBOSE") or os.environ.get("DNNL_VERBOSE") or "0"
    if asked.isdigit() and int(asked):
        verbose(int(asked)).__enter__()


@contextlib.contextmanager
def _printed() -> Iterator[IO[bytes]]:
    """Catch what libraries print meanwhile, beside Python's own stream."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(1)
        try:
            os.dup2(file.fileno(), 1)
            yield file
        finally:
            os.dup2(kept, 1)
            os.close(kept)
