"""The subcommand `summary`: the cost of a network, layer by layer."""

from __future__ import annotations

import json
from dataclasses import fields

from vgg_lightning.base import text as render
from vgg_lightning.cli.network_arguments import Parser, positive
from vgg_lightning.networks import NETWORKS
from vgg_lightning.networks.cost import Summary, summarize
from vgg_lightning.networks.summary_table import as_markdown, as_table
from vgg_lightning.networks.tracing import Layer


def main(args: list[str]) -> int:
    """Print layers, shapes, parameters, multiply-adds and memory of a network; nothing is trained."""
    parser = Parser("summary", main.__doc__ or "")
    parser.add_argument("network", help=", ".join(NETWORKS))
    parser.add_argument("--format", choices=render.FORMATS, default="table")
    parser.add_argument("--batch_size", type=positive, default=1, help="images in a batch, for the memory")
    parser.add_network_options()
    own, options = parser.parse(args)
    summary = summarize(own.network, batch_size=own.batch_size, **options)
    print(FORMATS[own.format](summary))
    return 0


def as_csv(summary: Summary) -> str:
    """Return one line for each layer."""
    columns = [field.name for field in fields(Layer)]
    return render.csv_text(columns, [[getattr(layer, c) for c in columns] for layer in summary.layers])


def as_json(summary: Summary) -> str:
    """Return everything."""
    return json.dumps(summary.to_dict(), indent=2)


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv, "markdown": as_markdown}
