"""The subcommand `summary`: the cost of a network, layer by layer."""

from __future__ import annotations

import json
from dataclasses import fields

from vgg_lightning.base import text as render
from vgg_lightning.cli.network_arguments import Parser, positive
from vgg_lightning.networks import NETWORKS
from vgg_lightning.networks.cost import Block, Summary, summarize
from vgg_lightning.networks.tracing import Layer

HEADER = ("layer", "type", "output", "parameters", "multiply-adds", "activations", "receptive field")


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


def as_table(summary: Summary) -> str:
    """Return blocks with their layers indented below them, then the totals."""
    totals = render.table(("total", "", ""), totals_of(summary))
    rule, *lines = totals.splitlines()[1:]
    body = render.table(HEADER, rows_of(summary, layer_prefix="  "))
    return "\n".join((f"{title_of(summary)}\n", body, "", rule, *lines))


def as_markdown(summary: Summary) -> str:
    """Return blocks in bold, each followed by its layers, then a table of the totals."""
    body = render.markdown(HEADER, rows_of(summary, block_mark="**"))
    return f"{title_of(summary)}\n\n{body}\n\n{render.markdown(('total', 'value', 'note'), totals_of(summary))}"


def as_csv(summary: Summary) -> str:
    """Return one line for each layer."""
    columns = [field.name for field in fields(Layer)]
    return render.csv_text(columns, [[getattr(layer, c) for c in columns] for layer in summary.layers])


def as_json(summary: Summary) -> str:
    """Return everything."""
    return json.dumps(summary.to_dict(), indent=2)


FORMATS = {"table": as_table, "json": as_json, "csv": as_csv, "markdown": as_markdown}


def title_of(summary: Summary) -> str:
    """Return the network and its options in one line."""
    options = ", ".join(f"{option} {value}" for option, value in summary.options.items())
    return f"{summary.network}: {options}; counts are for one image"


def rows_of(summary: Summary, block_mark: str = "", layer_prefix: str = "") -> list[render.Row]:
    """Return for each block its row, and below it one for each layer."""
    rows: list[render.Row] = []
    for block in summary.blocks:
        rows.append(_block_row(block, block_mark))
        rows += [
            (
                layer_prefix + layer.name,
                layer.type,
                layer.output_shape,
                layer.params or None,
                layer.macs or None,
                render.memory(layer.activation_bytes),
                layer.receptive_field,
            )
            for layer in block.layers
        ]
    return rows


def _block_row(block: Block, mark: str) -> render.Row:
    last = block.layers[-1]
    plural = "" if block.weight_layers == 1 else "s"
    return (
        f"{mark}{block.name}{mark}",
        f"{mark}{block.weight_layers} layer{plural} with weights{mark}" if block.weight_layers else "",
        last.output_shape,
        block.total("params"),
        block.total("macs"),
        render.memory(block.total("activation_bytes")),
        last.receptive_field,
    )


def totals_of(summary: Summary) -> list[tuple[str, str, str]]:
    """Return name, value and remark of the totals."""
    total, memory = summary.total, summary.memory
    batch = f"batch of {memory.batch_size}, float32"
    optimizers = ", ".join(f"{name} {render.memory(size)}" for name, size in memory.optimizer.items())
    return [
        ("layers with weights", str(total.weight_layers), f"in {len(summary.blocks)} blocks"),
        ("parameters", render.scaled(total.total("params")), f"{total.total('params'):,}"),
        ("multiply-adds", render.scaled(total.total("macs")), "forward"),
        ("multiply-adds", render.scaled(total.total("training_macs")), "forward and backward"),
        ("activations", render.memory(total.total("activation_bytes")), "outputs of all layers"),
        ("memory, weights", render.memory(memory.parameters), "as much again for their gradients"),
        ("memory, optimizer", "", optimizers),
        ("memory, kept for backward", render.memory(memory.kept_for_backward), batch),
        ("memory, training", render.memory(memory.training), f"{batch}: weights, gradients, kept; plain SGD"),
        ("memory, inference", render.memory(memory.inference), f"{batch}: weights, largest layer"),
    ]
