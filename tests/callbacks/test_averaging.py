"""The moving average, beside torch's."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vgg_lightning.training.averaging import MovingAverage


def network(norm=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4) if norm else nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("norm", [True, False])
def test_it_is_the_average_that_torch_makes(norm):
    model = network(norm)
    ours = MovingAverage(model, torch.device("cpu"), 0.7)
    torchs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=True)
    for _ in range(5):
        model(torch.randn(8, 3))
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight))
        ours.update_parameters(model)
        torchs.update_parameters(model)
    expected = torchs.state_dict()
    for name, value in ours.state_dict().items():
        if "num_batches" in name:  # a counter, of which torch makes a fraction, cut off
            assert value == 5
        else:
            assert torch.equal(value, expected[name]), name


def test_a_restored_average_goes_on():
    model, averages = network(), []
    whole = MovingAverage(model, torch.device("cpu"), 0.7)
    for _ in range(4):
        with torch.no_grad():
            model[0].weight.add_(1)
        whole.update_parameters(model)
        resumed = MovingAverage(model, torch.device("cpu"), 0.7)
        if averages:
            resumed.load_state_dict(averages[-1])
            resumed.update_parameters(model)
            assert torch.equal(resumed.module[0].weight, whole.module[0].weight)
        averages.append({name: value.clone() for name, value in whole.state_dict().items()})


def test_no_step_asks_the_device():
    """Values of tensors on the device "meta" cannot be read."""
    model = network()
    average = MovingAverage(model, torch.device("cpu"), 0.7)
    average.update_parameters(model)
    average.to("meta").update_parameters(model.to("meta"))
