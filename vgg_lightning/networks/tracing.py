"""Runs a network on torch's meta device and records its layers: computes shapes, but no values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, saved_tensors_hooks

from vgg_lightning.networks.sizes import Windowed, window

BYTES = 4  # of a float32


@dataclass(frozen=True)
class Layer:
    """One layer of a network; all counts are for one image.

    Attributes:
        name: path of the module, such as "blocks.0.0".
        block: the row of the block table to which the layer belongs, such as "blocks.0".
        type: name of the module's class.
        input_shape: without the batch dimension.
        output_shape: without the batch dimension.
        params: number of trainable values.
        macs: multiply-adds of a forward pass.
        training_macs: multiply-adds of a forward and a backward pass.
        activation_bytes: memory of the output.
        receptive_field: side in pixels of the part of the image that one output value can depend on.
    """

    name: str
    block: str
    type: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    macs: int
    training_macs: int
    activation_bytes: int
    receptive_field: int

    @property
    def has_weights(self) -> bool:
        """Whether papers count it as a layer: a convolution or a Linear layer, but no normalisation."""
        return self.macs > 0


def trace_layers(network: nn.Module, image: tuple[int, int, int]) -> tuple[Layer, ...]:
    """Return the layers of a `network` on the meta device in the order in which they run.

    A module with children is listed only if it makes a tensor itself: Inception, which joins its paths.

    Args:
        network: takes (N, C, H, W); its direct children are chains of layers and blocks.
        image: (C, H, W).
    """
    blocks = _block_names(network)
    tracer = _Tracer(image_size=image[-1])
    handles = [
        module.register_forward_hook(partial(tracer, name, blocks.get(name, name)))
        for name, module in network.named_modules()
    ]
    try:
        network.train()(torch.empty(2, *image, device="meta"))  # 2: BatchNorm refuses a single vector
    finally:
        for handle in handles:
            handle.remove()
    return tuple(tracer.layers)


class _Tracer:
    """A forward hook that notes one `Layer` for each call."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self.layers: list[Layer] = []
        self.fields: dict[Node, tuple[int, int]] = {}  # receptive field, and pixels from one value to the next
        self.made: dict[int, Tensor] = {}  # by storage; held, so that no later tensor takes its place

    def __call__(self, name: str, block: str, module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        """Note the call of one layer."""
        x, is_leaf = args[0], not any(module.children())
        self.made.setdefault(_storage(x), x)
        is_new = _storage(output) not in self.made
        self.made[_storage(output)] = output
        if not (is_leaf or is_new):
            return
        field, step = self._field_of(x.grad_fn if is_leaf else output.grad_fn)
        field, step = _widen(module, field, step, self.image_size)
        if output.grad_fn is not None:
            self.fields[output.grad_fn] = field, step
        macs = _multiply_adds(module, output)
        self.layers.append(
            Layer(
                name=name,
                block=block,
                type=type(module).__name__,
                input_shape=tuple(x.shape[1:]),
                output_shape=tuple(output.shape[1:]),
                params=sum(p.numel() for p in module.parameters()) if is_leaf else 0,
                macs=macs,
                training_macs=macs * (3 if x.requires_grad else 2),
                activation_bytes=BYTES * output[0].numel() if is_new else 0,
                receptive_field=min(field, self.image_size),
            )
        )

    def _field_of(self, node: Node | None) -> tuple[int, int]:
        """Return the field of what `node` computed: its layer's, or the largest of what was added."""
        if node is None:
            return 1, 1
        if node not in self.fields:
            self.fields[node] = max((self._field_of(n) for n, _ in node.next_functions), default=(1, 1))
        return self.fields[node]


def _widen(module: nn.Module, field: int, step: int, image_size: int) -> tuple[int, int]:
    """Return receptive field and step behind a layer from those before it."""
    if isinstance(module, Windowed):
        kernel, stride, _ = window(module)
        return field + (kernel - 1) * step, step * stride
    if isinstance(module, nn.Linear | nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return image_size, step
    return field, step


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return module.weight.numel()
    return 0


def _block_names(network: nn.Module) -> dict[str, str]:
    """Return for each module below `network.blocks` and `network.head` the block in which it is shown."""
    names: dict[str, str] = {}
    for part, chain in network.named_children():
        for group in _groups(chain):
            block = f"{part}.{group[0]}" + (f"-{group[-1]}" if len(group) > 1 else "")
            for child in group:
                module = chain.get_submodule(child)
                names |= {name: block for name, _ in module.named_modules(prefix=f"{part}.{child}")}
    return names


def _groups(chain: nn.Module) -> list[list[str]]:
    """Return the children in groups: one with layers of its own alone, bare layers with one that has weights.

    A Linear layer thus stands with the Flatten before it and the ReLU behind it.
    """
    groups: list[list[str]] = []
    for child, module in chain.named_children():
        last = [chain.get_submodule(name) for name in groups[-1]] if groups else []
        bare = not any(any(m.children()) for m in (*last, module))
        if last and bare and not (_is_heavy(module) and any(map(_is_heavy, last))):
            groups[-1].append(child)
        else:
            groups.append([child])
    return groups


def _is_heavy(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


def kept_bytes(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the bytes that autograd keeps after a forward pass in training, beside weights and statistics.

    Args:
        network: on the meta device.
        shape: of the batch, (N, C, H, W).
    """
    own = {_storage(t) for t in (*network.parameters(), *network.buffers())}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            saved[_storage(tensor)] = tensor  # held, so that no later tensor takes its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.empty(shape, device="meta"))
    return sum(t.untyped_storage().nbytes() for t in saved.values())


def _storage(tensor: Tensor) -> int:
    """Return what tells the memory of a tensor apart, also on the meta device; views share it."""
    return id(tensor.untyped_storage())  # one object as long as there is the memory
