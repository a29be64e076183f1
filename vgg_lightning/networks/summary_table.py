"""What a network costs, as a table: blocks with their layers, then the totals."""

from __future__ import annotations

from vgg_lightning.base import text as render
from vgg_lightning.networks.cost import Block, Summary

HEADER = ("layer", "type", "output", "parameters", "multiply-adds", "activations", "field")


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


def title_of(summary: Summary) -> str:
    """Return the network and its options in one line."""
    options = ", ".join(f"{option} {value}" for option, value in summary.options.items())
    notes = "counts are for one image; field: the receptive field, in pixels"
    return render.wrapped(f"{summary.network}: {options}; {notes}")


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
    return (
        f"{mark}{block.name}{mark}",
        f"{mark}{block.weight_layers} with weights{mark}" if block.weight_layers else "",
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
