"""A model of data-parallel training: how long a step waits for gradients, for `compare --gpus`. Nothing is measured.

Each GPU has its own batch of the same size, and after it all gradients are averaged by a ring all-reduce, in which
each GPU sends 2 (n - 1) / n times the bytes of the gradients in 2 (n - 1) messages (Patarasuk and Yuan, "Bandwidth
optimal all-reduce algorithms for clusters of workstations", https://doi.org/10.1016/j.jpdc.2008.09.002). DDP sends
them in buckets during the backward pass; the last bucket is ready only when it is over.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from vgg_lightning.base import text as render
from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.networks.cost import Summary
from vgg_lightning.networks.tracing import BYTES

BUCKET = 25 * 2**20  # bytes: DDP's default


@dataclass(frozen=True)
class Link:
    """What joins the GPUs: nominal bytes/s in one direction, and seconds for a message to arrive."""

    bandwidth: float
    latency: float


# Bandwidths are those of the standards and data sheets, latencies usual orders of magnitude.
LINKS = {
    "1GbE": Link(0.125e9, 50e-6),
    "10GbE": Link(1.25e9, 50e-6),
    "25GbE": Link(3.125e9, 30e-6),
    "100GbE": Link(12.5e9, 10e-6),
    "InfiniBandHDR": Link(25e9, 5e-6),
    "InfiniBandNDR": Link(50e9, 5e-6),
    "PCIe3": Link(15.75e9, 10e-6),
    "PCIe4": Link(31.5e9, 10e-6),
    "PCIe5": Link(63e9, 10e-6),
    "NVLink3": Link(300e9, 5e-6),
    "NVLink4": Link(450e9, 5e-6),
}


@dataclass(frozen=True)
class Load:
    """What one GPU does in a step.

    Attributes:
        compute: seconds of forward, backward and update.
        backward: those of them in which gradients can already be sent.
        gradient_bytes: in float32, also under mixed precision.
    """

    compute: float
    backward: float
    gradient_bytes: int


@dataclass(frozen=True)
class Step:
    """One step on `gpus` GPUs; times in seconds, shares and efficiencies from 0 to 1.

    Attributes:
        gpus: number of GPUs.
        communication: of the all-reduce.
        share: of the communication in the step, if nothing overlaps.
        efficiency: rate over that of as many GPUs without communication, if nothing overlaps.
        overlapped_efficiency: the same, if the backward pass hides all but the last bucket.
    """

    gpus: int
    communication: float
    share: float
    efficiency: float
    overlapped_efficiency: float


def load_of(summary: Summary, batch_size: int, flops: float, examples_per_second: float | None = None) -> Load:
    """Return the load of a network.

    Args:
        summary: of the network.
        batch_size: images on each GPU.
        flops: floating-point operations a second that a GPU sustains; a multiply-add is two.
        examples_per_second: of one GPU in training, if it was measured: it takes the place of `flops`.
    """
    forward, training = summary.total.total("macs"), summary.total.total("training_macs")
    compute = batch_size / examples_per_second if examples_per_second else batch_size * 2 * training / flops
    return Load(compute, compute * (training - forward) / training, BYTES * summary.total.total("params"))


def step_of(load: Load, gpus: int, link: Link) -> Step:
    """Return what the model says of a step."""
    rounds = 2 * (gpus - 1)
    communication = rounds / gpus * load.gradient_bytes / link.bandwidth + rounds * link.latency
    last = communication * min(1.0, BUCKET / load.gradient_bytes)
    exposed = max(communication - load.backward, last)
    return Step(
        gpus,
        communication,
        share=communication / (load.compute + communication),
        efficiency=load.compute / (load.compute + communication),
        overlapped_efficiency=load.compute / (load.compute + exposed),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the model."""
    group = parser.add_argument_group("a model of several GPUs, instead of measurements (docs/scale_model.md)")
    group.add_argument("--gpus", metavar="N,N,...", help="numbers of GPUs, such as 2,8,64")
    group.add_argument("--link", default="100GbE", help=f"{', '.join(LINKS)}, or GB/s in one direction (100GbE)")
    group.add_argument(
        "--latency_us", type=_number, help="latency of a message in microseconds (default: that of the link)"
    )
    group.add_argument("--peak_tflops", type=_number, default=312.0, help="peak of one GPU (312: A100, bfloat16)")
    group.add_argument("--utilisation", type=_number, default=0.3, help="share of the peak that training reaches (0.3)")
    group.add_argument("--examples_per_second", type=_number, help="measured on one GPU, instead of these two")


def report(own: argparse.Namespace, summaries: list[Summary]) -> str:
    """Return the model's table for networks in the format that was asked for.

    Raises:
        UserError: if an option cannot be used.
    """
    counts, link = _counts(own.gpus), _link(own.link, own.latency_us)
    if not 0 < own.utilisation <= 1:
        raise UserError(f"--utilisation {own.utilisation} is out of range: it takes a share above 0 and up to 1")
    flops = own.peak_tflops * 1e12 * own.utilisation
    loads = [load_of(summary, own.batch_size, flops, own.examples_per_second) for summary in summaries]
    found = [(s, load, step_of(load, n, link)) for s, load in zip(summaries, loads, strict=True) for n in counts]
    return FORMATS[own.format](found, assumptions(own, link))


def assumptions(own: argparse.Namespace, link: Link) -> str:
    """Return in one line what the figures stand on."""
    speed = (
        f"{own.examples_per_second:g} examples/s on a GPU"
        if own.examples_per_second
        else f"{own.peak_tflops:g} TFLOP/s at {own.utilisation:.0%}"
    )
    return (
        f"a model, not measured: batch {own.batch_size} on each GPU, {speed}, ring all-reduce of float32 gradients "
        f"over {link.bandwidth / 1e9:g} GB/s with {link.latency * 1e6:g} us a message"
    )


Found = list[tuple[Summary, Load, Step]]
EXACT = (
    *("network", "gpus", "gradient_bytes", "compute_seconds", "communication_seconds"),
    *("communication_share", "efficiency", "overlapped_efficiency"),
)


def _exact(found: Found) -> list[list[object]]:
    return [
        [
            *(s.network, x.gpus, load.gradient_bytes, load.compute),
            *(x.communication, x.share, x.efficiency, x.overlapped_efficiency),
        ]
        for s, load, x in found
    ]


def _words(found: Found) -> tuple[list[str], list[list[str]]]:
    header = ["network", "GPUs", "gradients", "compute", "communication", "share", "efficiency", "with overlap"]
    rows = [
        [
            *(s.network, str(x.gpus), render.memory(load.gradient_bytes)),
            *(f"{1e3 * seconds:.2f} ms" for seconds in (load.compute, x.communication)),
            *(f"{100 * part:.1f} %" for part in (x.share, x.efficiency, x.overlapped_efficiency)),
        ]
        for s, load, x in found
    ]
    return header, rows


def _as_json(found: Found, line: str) -> str:
    import json

    rows = [dict(zip(EXACT, row, strict=True)) for row in _exact(found)]
    return json.dumps({"assumptions": line, "steps": rows}, indent=2)


FORMATS = {
    "table": lambda found, line: f"{line}\n\n{render.table(*_words(found))}",
    "markdown": lambda found, line: f"{line}\n\n{render.markdown(*_words(found))}",
    "csv": lambda found, line: render.csv_text(EXACT, _exact(found)),
    "json": _as_json,
}


def _counts(text: str) -> list[int]:
    parts = text.replace(" ", "").split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= 10**6 for part in parts):
        raise UserError(f"--gpus {text} is not a list of numbers: it takes numbers of GPUs such as 2,8,64")
    return [int(part) for part in parts]


def _link(name: str, latency_us: float | None) -> Link:
    known = {key.lower(): link for key, link in LINKS.items()}
    link = known.get(name.lower())
    if link is None:
        try:
            link = Link(1e9 * _number(name), 10e-6)
        except argparse.ArgumentTypeError as error:
            raise UserError(
                f"--link {name} is unknown{nearest(name, LINKS)}: it takes {', '.join(LINKS)}, or GB/s"
            ) from error
    return link if latency_us is None else Link(link.bandwidth, latency_us * 1e-6)


def _number(text: str) -> float:
    """Read a positive finite number."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
