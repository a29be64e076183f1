"""The starting weights."""

import math

import pytest
import torch
from torch import nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.networks import INIT_SCHEMES, build_network, initialize


def network(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_network("vgg11", image_size=32, ratio=4, hidden_units=256, in_channels=3, **options)


def layers(net: nn.Module, kind: type[nn.Module]) -> list:
    return [m for m in net.modules() if isinstance(m, kind)]


def biases(net: nn.Module) -> torch.Tensor:
    return torch.cat([m.bias for m in layers(net, nn.Conv2d) + layers(net, nn.Linear)])


def test_default_changes_nothing():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    assert initialize(net, "default") is net
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_xavier_is_uniform_within_its_bound_and_leaves_biases():
    net = network()
    before = biases(net).clone()
    for layer in layers(initialize(net, "xavier"), nn.Conv2d) + layers(net, nn.Linear):
        places = layer.weight[0, 0].numel()  # 9 in a 3x3 convolution
        bound = math.sqrt(6 / (places * sum(layer.weight.shape[:2])))
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound * 1.000001
        assert float(layer.weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert torch.equal(before, biases(net))


def test_kaiming_as_torchvisions_vgg():
    net = initialize(network(), "kaiming")
    for layer in layers(net, nn.Conv2d):
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / (9 * layer.out_channels)), rel=0.15)
    for layer in layers(net, nn.Linear):
        assert float(layer.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    assert not biases(net).any()


def test_dirac_hands_channels_on_and_leaves_the_rest():
    net = network()
    before = [layer.weight.clone() for layer in layers(net, nn.Conv2d)]
    for layer, old in zip(layers(initialize(net, "dirac"), nn.Conv2d), before, strict=True):
        x = torch.rand(1, layer.in_channels, 5, 5)
        y = nn.functional.conv2d(x, layer.weight, padding=1)
        assert torch.equal(y[:, : layer.in_channels], x)
        assert torch.equal(layer.weight[layer.in_channels :], old[layer.in_channels :])


def test_dirac_with_fewer_filters_than_channels():
    net = initialize(build_network("densenet", image_size=32), "dirac")
    conv = next(m for m in layers(net, nn.Conv2d) if m.out_channels < m.in_channels)
    x = torch.rand(1, conv.in_channels, 5, 5)
    y = nn.functional.conv2d(x, conv.weight, padding=conv.padding)
    assert torch.equal(y, x[:, : conv.out_channels])


@pytest.mark.parametrize("scheme", INIT_SCHEMES)
def test_schemes_keep_the_weights_trainable_and_take_layers_without_bias(scheme):
    net = initialize(network(batch_norm=True), scheme)
    assert all(p.requires_grad and p.grad_fn is None for p in net.parameters())
    net(torch.rand(2, 3, 32, 32)).sum().backward()


def test_unknown_scheme():
    with pytest.raises(UserError, match=r"'xaver' is unknown \(did you mean xavier\?\): use one of default, "):
        initialize(network(), "xaver")
