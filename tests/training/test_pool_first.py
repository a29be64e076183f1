"""Pooling before the ReLU in training: the same outputs and gradients, bit for bit, and nothing to be seen of it."""

import pytest
import torch
from torch import nn

from vgg_lightning import Classifier, build_network
from vgg_lightning.training.compiling import PoolFirst, pool_first

CASES = {
    "vgg11": {"ratio": 16, "head": "gap", "image_size": 32},
    "vgg13": {"ratio": 16, "head": "gap", "batch_norm": True, "image_size": 32},
    "alexnet": {"image_size": 96, "hidden_units": 16},
}


def gradients(network, x):
    torch.manual_seed(1)  # of dropout
    logits = network(x)
    logits.square().sum().backward()
    return [logits, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_outputs_and_gradients_have_the_same_bits(name, dtype, layout):
    torch.manual_seed(0)
    plain = build_network(name, **CASES[name]).to(memory_format=layout)
    first = pool_first(build_network(name, **CASES[name])).to(memory_format=layout)
    first.load_state_dict(plain.state_dict())
    assert any(isinstance(m, PoolFirst) for m in first.modules())
    size = CASES[name]["image_size"]
    x = torch.randn(4, 1, size, size).to(memory_format=layout)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert all(map(torch.equal, gradients(plain, x), gradients(first, x)))


def test_ties_zeros_and_nan_give_the_same_bits():
    block = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, 2))
    values = torch.tensor([-1.0, -0.0, 0.0, 1.0, float("nan"), float("inf")])
    x = torch.cartesian_prod(values, values, values, values).reshape(-1, 1, 2, 2)
    results = []
    for module in (block, pool_first(nn.Sequential(*block))):
        leaf = x.clone().requires_grad_()
        out = module.train()(leaf)
        out.sum().backward()
        results.append((out, leaf.grad))
    (out, grad), (other, other_grad) = results
    assert torch.equal(out.nan_to_num(9), other.nan_to_num(9))
    known = ~x.isnan().flatten(1).any(dim=1)  # a step with NaN is never taken
    assert torch.equal(grad[known], other_grad[known])


def test_the_relu_sees_a_quarter_in_training_and_everything_in_evaluation():
    network = pool_first(build_network("vgg11", ratio=32, head="gap", image_size=32))
    relu, seen = network.blocks[0][1], []
    relu.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
    for mode in (True, False):
        network.train(mode)(torch.zeros(1, 1, 32, 32))
    assert seen == [16, 32]


def test_a_classifier_has_it_and_keeps_names_and_order_of_the_layers():
    ours = Classifier(ratio=32, head="gap").network
    plain = build_network("vgg11", ratio=32, head="gap", image_size=32)
    assert sum(isinstance(m, PoolFirst) for m in ours.modules()) == 5
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in ours.modules() if not [*m.children()]] == [
        type(m) for m in plain.modules() if not [*m.children()]
    ]


def test_batch_norm_behind_the_relu_stays_where_it_is():
    network = build_network("vgg11", ratio=32, head="gap", batch_norm=True, norm_after_relu=True, image_size=32)
    assert not any(isinstance(m, PoolFirst) for m in pool_first(network).modules())
