"""What the summary computes: against published figures, against real tensors, against sums done by hand."""

import pytest
import torch
from torch import nn

from vgg_lightning.networks import NETWORKS, build_network
from vgg_lightning.networks.cost import summarize
from vgg_lightning.networks.tracing import kept_bytes


def layer_of(summary, name):
    return next(layer for layer in summary.layers if layer.name == name)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("vgg11", 132.86, 7.61), ("vgg13", 133.05, 11.31), ("vgg16", 138.36, 15.47), ("vgg19", 143.67, 19.63)],
)
def test_published_figures(name, params, macs):
    total = summarize(name, in_channels=3, num_classes=1000).total
    assert round(total.total("params") / 1e6, 2) == params
    assert round(total.total("macs") / 1e9, 2) == macs


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_in_one_layer(name):
    with torch.device("meta"):
        network = build_network(name, image_size=96)
    summary = summarize(name, image_size=96)
    assert summary.total.total("params") == sum(p.numel() for p in network.parameters())
    weighted = [layer.name for layer in summary.layers if layer.has_weights]
    assert weighted == [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer for block in summary.blocks for layer in block.layers] == list(summary.layers)


def test_layer_by_hand():
    conv = layer_of(summarize("vgg11", image_size=96, ratio=4), "blocks.1.0")
    assert (conv.type, conv.block, conv.input_shape) == ("Conv2d", "blocks.1", (16, 48, 48))
    assert conv.output_shape == (32, 48, 48)
    assert conv.params == 16 * 32 * 9 + 32
    assert conv.macs == 48 * 48 * 32 * 16 * 9
    assert conv.training_macs == 3 * conv.macs
    assert conv.activation_bytes == 4 * 32 * 48 * 48


@pytest.mark.parametrize("name", NETWORKS)
def test_training_is_three_forward_passes_less_the_gradient_of_the_picture(name):
    summary = summarize(name, image_size=96)
    first = summary.layers[0]
    assert summary.total.total("training_macs") == 3 * summary.total.total("macs") - first.macs


def test_views_take_no_memory():
    for layer in summarize("vgg11", image_size=32, batch_norm=True, head="gap").layers:
        assert (layer.activation_bytes == 0) == (layer.type == "Flatten")


# Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", 2019, gives 212
# for VGG-16 and 195 for AlexNet.
@pytest.mark.parametrize(("name", "layer", "side"), [("vgg16", "blocks.4.6", 212), ("alexnet", "blocks.12", 195)])
def test_receptive_field(name, layer, side):
    assert layer_of(summarize(name), layer).receptive_field == side


def test_receptive_field_takes_the_widest_path_and_ends_at_the_picture():
    block = summarize("googlenet", image_size=224)
    before = layer_of(block, "blocks.1.2").receptive_field
    assert layer_of(block, "blocks.2.0").receptive_field == before + 4 * 8  # 5x5, eight pixels apart
    assert layer_of(block, "blocks.2.0.path1.0").receptive_field == before
    assert max(layer.receptive_field for layer in block.layers) == 224
    residual = summarize("resnet18", image_size=224)
    assert layer_of(residual, "blocks.1.0.relu").receptive_field == 11 + 2 * 2 * 4


def test_receptive_field_is_where_the_gradient_reaches():
    network = build_network("densenet", image_size=224).eval()
    x = torch.rand(1, 1, 224, 224, requires_grad=True)
    features = network.blocks[:4](x)  # two dense blocks
    features[0, :, 14, 14].sum().backward()
    rows = x.grad[0, 0].abs().sum(dim=1).nonzero()
    reached = int(rows.max() - rows.min()) + 1
    summary = summarize("densenet")
    # Windows that stop short of the theoretical field are those that skip pixels: the stem's pooling.
    assert 0.9 < reached / layer_of(summary, "blocks.3.3").receptive_field <= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_bytes_are_those_of_real_tensors(name):
    options = {"ratio": 16, "hidden_units": 32} if name.startswith("vgg") else {}
    network = build_network(name, image_size=67, **options)
    shape = (3, 1, 67, 67)
    saved: dict[int, torch.Tensor] = {}
    own = {t.data_ptr() for t in (*network.parameters(), *network.buffers())}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        output = network(torch.rand(shape))
    real = sum(t.untyped_storage().nbytes() for t in saved.values())
    assert output.requires_grad
    assert kept_bytes(network.to("meta"), shape) == pytest.approx(real, rel=0.002)
    assert summarize(name, image_size=67, batch_size=3, **options).memory.kept_for_backward == kept_bytes(
        network, shape
    )


def test_memory_adds_up():
    memory = summarize("vgg11", image_size=96, batch_size=64).memory
    assert memory.parameters == memory.gradients == 4 * 44_920_074
    assert memory.training == 2 * memory.parameters + memory.kept_for_backward
    assert memory.optimizer == {
        "sgd": 0,
        "sgd with momentum": memory.parameters,
        "adam": 2 * memory.parameters,
    }
    one, two = (summarize("vgg11", image_size=96, batch_size=n).memory for n in (1, 2))
    assert memory.kept_for_backward == 64 * one.kept_for_backward == 32 * two.kept_for_backward
