"""The subcommand `compare`: the cost of several networks, computed and measured on this machine."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vgg_lightning.base import text as render
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.imports import imports
from vgg_lightning.base.machine import no_memory_left
from vgg_lightning.base.progress import counting_bar
from vgg_lightning.cli.network_arguments import Parser, positive
from vgg_lightning.compare import scale_model
from vgg_lightning.compare.measure import Job
from vgg_lightning.networks import NETWORKS, network_options
from vgg_lightning.networks.cost import Summary, summarize
from vgg_lightning.run.precision import AUTO, DEFAULT, chosen, fault

LONG = 10  # seconds of a measurement after which a line says so where there is no bar


@dataclass
class Entry:
    """One network of the comparison; `measured` is empty until it was measured, `error` says why not."""

    summary: Summary
    measured: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def figure(self, key: str) -> float | int | None:
        """Return a figure by name, None if it was not measured."""
        total, memory = self.summary.total, self.summary.memory
        computed = {
            "weight_layers": total.weight_layers,
            "params": total.total("params"),
            "macs": total.total("macs"),
            "training_macs": total.total("training_macs"),
            "activation_bytes": total.total("activation_bytes"),
            "kept_bytes": memory.kept_for_backward,
            "training_bytes": memory.training,
            "inference_bytes": memory.inference,
        }
        return computed.get(key, self.measured.get(key))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; figures that were not measured are None."""
        named = {"network": self.summary.network, "options": self.summary.options}
        return {**named, **{key: self.figure(key) for key in FIGURES}, "error": self.error or None}


# Key, what a reader sees, and how the number is written.
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "weight_layers": ("layers with weights", str),
    "params": ("parameters", render.scaled),
    "macs": ("multiply-adds, forward", render.scaled),
    "training_macs": ("multiply-adds, forward and backward", render.scaled),
    "activation_bytes": ("activations of one image", render.memory),
    "kept_bytes": ("computed: kept for backward", render.memory),
    "training_bytes": ("computed: training memory", render.memory),
    "inference_bytes": ("computed: inference memory", render.memory),
    "training_examples_per_second": ("measured: training, examples/s", "{:,.1f}".format),
    "inference_examples_per_second": ("measured: inference, examples/s", "{:,.1f}".format),
    "training_peak_bytes": ("measured: peak memory in training", render.memory),
    "inference_peak_bytes": ("measured: peak memory in inference", render.memory),
    "base_bytes": ("measured: of which torch itself", render.memory),
}


def main(args: list[str]) -> int:
    """Compare the cost of networks: computed figures, then speed and memory measured here."""
    parser = Parser("compare", main.__doc__ or "")
    parser.add_argument("networks", nargs="+", metavar="network", help=", ".join(NETWORKS))
    parser.add_argument("--format", choices=render.FORMATS, default="table")
    parser.add_argument("--batch_size", type=positive, default=16, help="images in a batch")
    parser.add_argument("--batches", type=positive, default=3, help="number of measured batches")
    parser.add_argument("--threads", type=positive, help="number of CPU threads (default: that of torch)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    precisions = (DEFAULT, "bf16-mixed", AUTO)
    parser.add_argument(
        "--precision", choices=precisions, default=DEFAULT, help="auto: bf16-mixed on CPUs that have it"
    )
    scale_model.add_arguments(parser)
    parser.add_network_options()
    own, options = parser.parse(args)
    batch: int = own.batch_size
    entries = [Entry(summarize(name, batch_size=batch, **kept)) for name, kept in _split(own, options)]
    if own.gpus is not None:
        print(scale_model.report(own, [entry.summary for entry in entries]))
        return 0
    device = _device(own.device)
    own.precision = chosen(device == "cpu") if own.precision == AUTO else own.precision
    if why := fault(own.precision, torch.device(device)):
        _note(f"note: --precision {own.precision}: {why}")
    interrupted = False
    try:
        with counting_bar("measuring", len(entries)) as bar:
            for i, entry in enumerate(entries):
                bar.set_description(f"measuring {entry.summary.network}")
                begin = time.monotonic()
                _measure(entry, own, device)
                if entry.measured and bar.disable and time.monotonic() - begin > LONG:
                    _note(f"measured {entry.summary.network}, {i + 1} of {len(entries)}")
                bar.update()
    except KeyboardInterrupt:
        interrupted = True
        _note("interrupted: what was not measured is left out")
    print(FORMATS[own.format](entries, _setting(own, device)))
    return 130 if interrupted else 0


def _split(own: argparse.Namespace, options: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each network with the options that it has, and say which it has not.

    Raises:
        UserError: if no network has an option.
    """
    known = {name: network_options(name) for name in own.networks}
    for option in options:
        without = [name for name in known if option not in known[name]]
        if len(without) == len(known):
            raise UserError(f"none of {', '.join(known)} has the option {option!r}: leave it out")
        for name in without:
            _note(f"{name} has no option {option!r}: compared without it")
    return [(name, {o: v for o, v in options.items() if o in known[name]}) for name in own.networks]


def _device(name: str) -> str:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda is not there: use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _measure(entry: Entry, own: argparse.Namespace, device: str) -> None:
    """Measure in a fresh process; a failure is noted in `entry`, so that the others continue."""
    what = entry.summary.network, entry.summary.options, own.batch_size, own.batches, device, own.threads
    job = Job(*what, imports(), own.precision)
    command = [sys.executable, "-m", "vgg_lightning.compare.measure", json.dumps(asdict(job))]
    package = str(Path(__file__).parents[2])  # the same one, installed or not
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode == -9:
        entry.error = f"ended by the system, most likely {no_memory_left()}"
    elif done.returncode:
        entry.error = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    else:
        result = json.loads(done.stdout.splitlines()[-1])
        entry.error = result.pop("error", "")
        entry.measured = result
    if entry.error:
        _note(f"{entry.summary.network} was not measured: {entry.error}")


def _note(text: str) -> None:
    """Print to stderr, so that JSON and CSV on stdout stay clean."""
    tqdm.write(text, file=sys.stderr)  # which does not tear a bar


def _setting(own: argparse.Namespace, device: str) -> dict[str, object]:
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    threads = own.threads or torch.get_num_threads()
    batches = {"batch_size": own.batch_size, "batches": own.batches}
    return {**batches, "device": name, "threads": threads, "precision": own.precision}


def as_table(entries: list[Entry], setting: dict[str, object]) -> str:
    """Return one column for each network, in several tables below each other if they are too many for a screen."""
    tables: list[str] = []
    rest = list(entries)
    while rest:
        for count in range(len(rest), 0, -1):
            table = render.table(*_columns(rest[:count]))
            if count == 1 or max(map(len, table.split("\n"))) <= render.WIDTH:
                break
        tables.append(table)
        rest = rest[count:]
    return "\n\n".join([_title(entries, setting), *tables])


def as_markdown(entries: list[Entry], setting: dict[str, object]) -> str:
    """Return one column for each network."""
    return f"{_title(entries, setting)}\n\n{render.markdown(*_columns(entries))}"


def as_csv(entries: list[Entry], setting: dict[str, object]) -> str:
    """Return one line for each network; its options and the setting stand in columns of their own."""
    plain = [entry.to_dict() for entry in entries]
    options = list(dict.fromkeys(option for entry in plain for option in entry["options"]))
    header = ["network", *options, *setting, *FIGURES, "error"]
    values = [{**entry, **entry["options"], **setting} for entry in plain]
    return render.csv_text(header, [[value.get(column) for column in header] for value in values])


def as_json(entries: list[Entry], setting: dict[str, object]) -> str:
    """Return everything."""
    return json.dumps({**setting, "networks": [entry.to_dict() for entry in entries]}, indent=2)


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv, "markdown": as_markdown}


def _title(entries: list[Entry], setting: dict[str, object]) -> str:
    lines = [
        render.wrapped(f"{entry.summary.network}: {', '.join(f'{o} {v}' for o, v in entry.summary.options.items())}")
        for entry in entries
    ]
    return "\n".join((*lines, ", ".join(f"{key} {value}" for key, value in setting.items())))


def _columns(entries: list[Entry]) -> tuple[list[str], list[render.Row]]:
    rows: list[render.Row] = []
    for key, (label, write) in FIGURES.items():
        values = [entry.figure(key) for entry in entries]
        rows.append([label, *(None if value is None else write(value) for value in values)])
    return ["", *(entry.summary.network for entry in entries)], rows
