"""The cost of a network, layer by layer: parameters, multiply-adds, activation memory, receptive field.

The network runs on torch's meta device: shapes are computed, numbers are not, and no memory is taken.

Conventions, which reproduce the published figures of VGG (15.47 G multiply-adds for VGG-16 at 3x224x224):

- A multiply-add is one product with its addition in a convolution or Linear layer, for one image. Biases,
  normalisation, activations and poolings count as none.
- Backward, each of these layers makes as many again for the gradient of its weights, and as many again for
  the gradient of its input, which the first layer does not need.
- Activation bytes of a layer are those of the new tensor it returns, at 4 bytes a value, for one image; a
  layer that returns a view of its input (Flatten) has none; the sums in a residual block are not counted.
- What training keeps for the backward pass is counted from the tensors that autograd saves, each once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.networks import build_network
from vgg_lightning.networks.tracing import BYTES, Layer, kept_bytes, trace_layers

LARGEST = 1_000_000  # of any option: beyond it torch cannot count the bytes of a tensor


@dataclass(frozen=True)
class Block:
    """Layers that make one row, with their sums; shape and receptive field are those of the last one."""

    name: str
    layers: tuple[Layer, ...]

    def total(self, count: str) -> int:
        """Return the sum over the layers of "params", "macs", "training_macs" or "activation_bytes"."""
        return sum(getattr(layer, count) for layer in self.layers)

    @property
    def weight_layers(self) -> int:
        """Number of convolutions and Linear layers."""
        return sum(layer.has_weights for layer in self.layers)


@dataclass(frozen=True)
class Memory:
    """Bytes that a batch takes in float32, without the workspace of the library.

    Attributes:
        batch_size: images in a batch.
        parameters: the weights.
        gradients: one for each weight.
        kept_for_backward: the activations (and the indices and masks) that training keeps, input included.
        optimizer: what an optimizer adds, by name.
        training: weights, gradients and kept activations: training with plain SGD.
        inference: weights, and input and output of the largest layer.
    """

    batch_size: int
    parameters: int
    gradients: int
    kept_for_backward: int
    optimizer: dict[str, int]
    training: int
    inference: int


@dataclass(frozen=True)
class Summary:
    """All figures of one network; `layers` in the order in which they run."""

    network: str
    options: dict[str, object]
    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    memory: Memory

    @property
    def blocks(self) -> list[Block]:
        """Return the layers by block."""
        names = dict.fromkeys(layer.block for layer in self.layers)
        return [Block(name, tuple(layer for layer in self.layers if layer.block == name)) for name in names]

    @property
    def total(self) -> Block:
        """Return all layers as one block."""
        return Block("total", self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        counts = ("params", "macs", "training_macs", "activation_bytes")
        return {
            "network": self.network,
            "options": self.options,
            "input": list(self.input),
            **{count: self.total.total(count) for count in counts},
            "weight_layers": self.total.weight_layers,
            "memory": asdict(self.memory),
            "blocks": [
                {
                    "name": block.name,
                    "output_shape": list(block.layers[-1].output_shape),
                    "weight_layers": block.weight_layers,
                    **{count: block.total(count) for count in counts},
                }
                for block in self.blocks
            ],
            "layers": [
                {**asdict(x), "input_shape": list(x.input_shape), "output_shape": list(x.output_shape)}
                for x in self.layers
            ],
        }


def summarize(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int = 224,
    batch_size: int = 1,
    **options: object,
) -> Summary:
    """Return what the network costs that `build_network` makes of the same arguments.

    Args:
        name: a key of `NETWORKS`.
        in_channels: channels of the input.
        num_classes: number of logits.
        image_size: height and width of the input in pixels.
        batch_size: images in a batch, for the memory.
        options: those of the network, such as `ratio`.

    Raises:
        UserError: as `build_network`, or if an option is larger than `LARGEST`.
    """
    shape = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    for option, value in {**shape, **options}.items():
        if isinstance(value, int) and value > LARGEST:
            raise UserError(f"{option} {value} is too large: use {LARGEST} or less")
    with torch.device("meta"):
        network = build_network(name, **shape, **options)  # type: ignore[arg-type]  # plain values, checked there
    image = (in_channels, image_size, image_size)
    layers = trace_layers(network, image)
    return Summary(name, {**shape, **options}, image, layers, _memory(network, layers, batch_size))


def _memory(network: nn.Module, layers: tuple[Layer, ...], batch_size: int) -> Memory:
    parameters = BYTES * sum(p.numel() for p in network.parameters())
    image = layers[0].input_shape
    # Affine in the batch size: a share per image, and a constant one (the statistics of BatchNorm).
    two, three = (kept_bytes(network, (n, *image)) for n in (2, 3))
    kept = two + (batch_size - 2) * (three - two)
    largest = max(BYTES * math.prod(layer.input_shape) + layer.activation_bytes for layer in layers)
    return Memory(
        batch_size=batch_size,
        parameters=parameters,
        gradients=parameters,
        kept_for_backward=kept,
        optimizer={"sgd": 0, "sgd with momentum": parameters, "adam": 2 * parameters},
        training=2 * parameters + kept,
        inference=parameters + batch_size * largest,
    )
