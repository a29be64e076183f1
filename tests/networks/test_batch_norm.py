"""The BatchNorm written from scratch equals torch's."""

import copy

import pytest
import torch
from torch import nn

from vgg_lightning.networks import build_network
from vgg_lightning.networks.batch_norm import BatchNorm

SHAPES = [(8, 5), (6, 5, 4, 3), (8, 5, 1, 1), (1, 5, 3, 3)]
# Of two values, the gradient of the input is all but zero: in float32 only rounding is left, in torch too.
CASES = [(s, d) for s in SHAPES for d in (torch.float64, torch.float32)] + [((2, 5), torch.float64)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.int64: 0}
FEATURES = 5


def pair(shape, dtype) -> tuple[nn.Module, nn.Module]:
    """Return the layer from scratch and torch's, with the same random affine parameters."""
    torch.manual_seed(0)
    library = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(FEATURES).to(dtype)
    nn.init.normal_(library.weight)
    nn.init.normal_(library.bias)
    scratch = BatchNorm(FEATURES).to(dtype)
    scratch.load_state_dict(library.state_dict())
    return scratch, library


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = TOLERANCE[expected.dtype]
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance * scale)


def same_state(scratch: nn.Module, library: nn.Module) -> None:
    assert list(scratch.state_dict()) == list(library.state_dict())
    for key, value in library.state_dict().items():
        close(scratch.state_dict()[key], value)


def step(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor) -> list[torch.Tensor]:
    """Return output and gradients of one pass."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    y.backward(upstream)
    return [y.detach(), x.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize(("shape", "dtype"), CASES)
def test_equal_to_torchs_in_training_and_evaluation(shape, dtype):
    scratch, library = pair(shape, dtype)
    for training in (True, True, True, False, True, False):
        x, upstream = 3 * torch.randn(shape, dtype=dtype) + 2, torch.randn(shape, dtype=dtype)
        results = [step(layer.train(training), x, upstream) for layer in (scratch, library)]
        for actual, expected in zip(*results, strict=True):
            close(actual, expected)
        same_state(scratch, library)
    assert scratch.num_batches_tracked == 4
    assert scratch.num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_state_goes_both_ways(shape):
    scratch, library = pair(shape, torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    library(x)
    scratch.load_state_dict(library.state_dict())
    same_state(scratch, library)
    scratch(x + 1)
    library.load_state_dict(scratch.state_dict())
    same_state(scratch, library)
    close(scratch.eval()(x), library.eval()(x))


def test_statistics_move_without_gradients_too():
    scratch, library = pair(SHAPES[1], torch.float32)
    with torch.no_grad():
        x = torch.randn(SHAPES[1])
        close(scratch(x), library(x))
    same_state(scratch, library)


def test_deepcopy_is_independent():
    scratch, _ = pair(SHAPES[0], torch.float32)
    twin = copy.deepcopy(scratch)
    before = {k: v.clone() for k, v in scratch.state_dict().items()}
    twin(torch.randn(SHAPES[0]) + 5)
    twin.weight.data.add_(1)
    assert all(torch.equal(before[k], v) for k, v in scratch.state_dict().items())
    assert not torch.equal(twin.running_mean, scratch.running_mean)


@pytest.mark.parametrize("shape", [(1, FEATURES), (1, FEATURES, 1, 1)])
def test_one_value_is_refused_in_training_alone(shape):
    scratch, library = pair(shape, torch.float32)
    for layer in (scratch, library):
        with pytest.raises(ValueError, match="more than"):
            layer(torch.zeros(shape))
        layer.eval()(torch.zeros(shape))


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="3 dimensions"):
        BatchNorm(FEATURES)(torch.zeros(2, FEATURES, 3))


def test_lenet_trains_alike_on_both():
    torch.manual_seed(0)
    library = build_network("lenet", image_size=28).double()
    scratch = build_network("lenet_scratch", image_size=28).double()
    scratch.load_state_dict(library.state_dict())
    optimizers = [torch.optim.SGD(n.parameters(), lr=1.0) for n in (scratch, library)]
    for _ in range(4):
        x, y = torch.rand(16, 1, 28, 28, dtype=torch.float64), torch.randint(10, (16,))
        for network, optimizer in zip((scratch, library), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    same_state(scratch, library)
    close(scratch.eval()(x), library.eval()(x))
