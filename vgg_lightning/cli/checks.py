"""The checks of `vgg-lightning doctor`: each returns findings, with a one-line fix if there is one."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vgg_lightning.base.machine import UNTOLD, free_memory, load, usable_cores
from vgg_lightning.base.text import install_line
from vgg_lightning.data.files import default_data_dir, faults_of
from vgg_lightning.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

# Package -> (the first version that works, the first that does not), as in pyproject.toml
NEEDED: dict[str, tuple[str, str]] = {
    "torch": ("2.10", "3"),
    "torchvision": ("0.25", "1"),
    "lightning": ("2.6.6", "2.7"),
    "torchmetrics": ("1.7", "2"),
    "jsonargparse": ("4.45", "5"),
    "tensorboard": ("2.19", "3"),
}
MALWARE = {"lightning": ("2.6.2", "2.6.3")}  # https://github.com/Lightning-AI/pytorch-lightning/issues/21691
EXTRAS: dict[str, tuple[str, ...]] = {
    "export": ("safetensors", "onnx", "onnxscript", "onnxruntime"),
    "completion": ("shtab",),
    "plots": ("matplotlib",),
    "serve": ("gradio",),
    "sweep": ("optuna",),
}
RUN_MEMORY = 1.2e9  # bytes; the preset quick takes 1.0 GB
RUN_DISK = 100e6  # bytes of a run with its checkpoints
DATA_DISK = 120e6  # bytes of the data set with its archives
CGROUP = Path("/sys/fs/cgroup/cpu.max")


class Finding(NamedTuple):
    """What was found: state is "ok", "note", "slow" or "broken"."""

    state: str
    what: str
    found: str
    remedy: str = ""


def examine(data_dir: str | None = None) -> list[Finding]:
    """Return all findings on this machine."""
    findings = [*software()]
    if any(finding.state == "broken" for finding in findings):
        return findings  # the others need these packages
    for check in CHECKS:
        findings += check()
    return [*findings, *data(data_dir), *disk(data_dir), *self_test()]


def software() -> Iterator[Finding]:
    """Check the versions of the libraries that a run uses."""
    yield Finding("ok", "versions", f"vgg_lightning {__version__}, Python {platform.python_version()}")
    for package, (first, last) in NEEDED.items():
        remedy = f'pip install "{package}>={first},<{last}"'
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("broken", package, "is not installed", remedy)
            continue
        if version in MALWARE.get(package, ()):
            remedy = f"change all passwords of this machine, then {remedy}"
            yield Finding("broken", package, f"{version} is a release that was malware", remedy)
        elif not _key(first) <= _key(version) < _key(last):
            yield Finding("broken", package, f"{version} was not tested", remedy)
        else:
            yield Finding("ok", package, version)


def device() -> Iterator[Finding]:
    """Look at GPU and instruction set."""
    import torch

    if torch.cuda.is_available():
        bf16 = "" if torch.cuda.is_bf16_supported(including_emulation=False) else ", no bfloat16: use 16-mixed"
        yield Finding("ok", "device", f"{torch.cuda.get_device_name()}{bf16}")
        return
    if torch.backends.mps.is_available():
        yield Finding("ok", "device", "mps, the GPU of a Mac: it is used; nothing was measured on one")
        return
    if Path("/proc/driver/nvidia").exists() or Path("/dev/nvidia0").exists():
        built = torch.version.cuda
        remedy = f"update the driver for CUDA {built}" if built else "install the build of torch with CUDA"
        yield Finding("slow", "device", "an NVIDIA GPU is here, but torch cannot use it", f"{remedy}: pytorch.org")
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "DEFAULT":
        yield Finding("slow", "device", "cpu without AVX2", "use another machine, or the preset speedrun")
    else:
        from vgg_lightning.run import bfloat16

        why = bfloat16.fault()
        bf16 = f"; not with bf16-mixed: {why}" if why else ", trains in bf16-mixed where the preset says auto"
        yield Finding("ok", "device", f"cpu with {capability}{bf16}")


def threads() -> Iterator[Finding]:
    """Hold the threads of torch against the cores that this process may use."""
    import torch

    used, cores = torch.get_num_threads(), allowed_cores()
    found = f"{used} of torch, {cores:g} cores are allowed"
    if used > max(1, cores):
        yield Finding(
            "slow", "threads", f"{found}: they wait for each other", f"export OMP_NUM_THREADS={int(cores) or 1}"
        )
    elif used < cores // 2:
        remedy = "unset OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else f"export OMP_NUM_THREADS={int(cores)}"
        yield Finding("slow", "threads", found, remedy)
    else:
        yield Finding("ok", "threads", found)
    busy = load()
    if busy is not None and busy > 0.5 * (os.cpu_count() or 1):
        yield Finding(
            "slow", "load", f"{busy:.1f} on {os.cpu_count()} cores: other programs are busy", "wait, or end them"
        )


def allowed_cores() -> float:
    """Return how many cores this process may use: of the machine, its affinity, or its container's share."""
    cores = float(usable_cores())
    with contextlib.suppress(OSError, ValueError):
        quota, period = CGROUP.read_text(encoding="ascii").split()
        cores = min(cores, int(quota) / int(period))
    return cores


def memory() -> Iterator[Finding]:
    """Look at the free memory, of the machine or its container."""
    free = free_memory()
    if free == UNTOLD:
        yield Finding("note", "memory", "this system does not tell how much is free; the preset quick takes 1.0 GB")
    elif free < RUN_MEMORY:
        remedy = "close programs, or lower --data.batch_size and --data.image_size"
        yield Finding("slow", "memory", f"{free / 1e9:.1f} GB free; the preset quick takes 1.0 GB", remedy)
    else:
        yield Finding("ok", "memory", f"{free / 1e9:.1f} GB free")


def environment() -> Iterator[Finding]:
    """Look at variables and optional packages."""
    if os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        found = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: other programs would run code in checkpoints"
        yield Finding("note", "safety", found, "unset TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            remedy = install_line(extra)
            yield Finding("note", "extras", f"{extra} needs {', '.join(missing)}", remedy)


def data(data_dir: str | None) -> Iterator[Finding]:
    """Look for Fashion-MNIST, and verify it."""
    folder, faults = faults_of(data_dir)
    if not faults:
        yield Finding("ok", "data", f"Fashion-MNIST, verified, in {folder}")
    elif set(faults.values()) == {"is missing"}:
        yield Finding("note", "data", f"no Fashion-MNIST in {folder} yet", "fit fetches it; or run vgg-lightning data")
    else:
        name, fault = next((name, fault) for name, fault in faults.items() if fault != "is missing")
        yield Finding("note", "data", f"{folder / name} {fault}", "fit fetches a sound one; or run vgg-lightning data")


def disk(data_dir: str | None) -> Iterator[Finding]:
    """Look at space and permission where runs and data go."""
    place = Path(data_dir).expanduser() if data_dir else default_data_dir()
    yield from _room("runs", Path.cwd() / "lightning_logs", RUN_DISK, "--trainer.default_root_dir")
    yield from _room("data disk", place, 0 if not faults_of(data_dir)[1] else DATA_DISK, "VGG_LIGHTNING_DATA")


def _room(what: str, folder: Path, needed: float, option: str) -> Iterator[Finding]:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield Finding("broken", what, f"{there} cannot be written", f"choose another folder with {option}")
    elif free < needed:
        remedy = f"make room, or choose another folder with {option}"
        yield Finding("broken", what, f"{free / 1e6:,.0f} MB free in {there}, {needed / 1e6:,.0f} MB needed", remedy)
    else:
        yield Finding("ok", what, f"{free / 1e9:,.1f} GB free in {there}")


def self_test() -> Iterator[Finding]:
    """Train a small convolution for some steps: its loss has to fall."""
    import torch
    from torch import nn

    begin = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            x, y = torch.rand(64, 1, 16, 16), torch.arange(64) % 2
            x[y == 1, :, :8] += 1
            net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
            first, last = _losses(net, x, y)
    except RuntimeError as error:
        yield Finding("broken", "self-test", " ".join(str(error).split())[:200], "reinstall torch: pytorch.org")
        return
    seconds = time.perf_counter() - begin
    if last < 0.5 * first:
        yield Finding(
            "ok", "self-test", f"a small convolution learns: loss {first:.2f} to {last:.2f} in {seconds:.1f} s"
        )
    else:
        yield Finding("broken", "self-test", f"loss {first:.2f} to {last:.2f}", "reinstall torch: pytorch.org")


def _losses(net: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the first and the last loss of 20 steps."""
    import torch

    net(x)  # which gives the lazy layer its shape
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.05), []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def _key(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")
    return tuple(int("".join(filter(str.isdigit, part)) or 0) for part in parts[:3])


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (device, threads, memory, environment)
