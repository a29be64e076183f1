"""A VGG with torchvision's weights gives torchvision's outputs."""

import pytest
import torch
import torchvision
from torch import nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.networks import build_network, load_torchvision_weights


def theirs(name: str) -> nn.Module:
    """Return torchvision's network with 6 classes and hidden layers of 8 units, so that it is quick."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = torchvision.models.get_model(name, num_classes=6)
    linears = [(25088, 8), (8, 8), (8, 6)]
    for index, (inputs, outputs) in zip((0, 3, 6), linears, strict=True):
        network.classifier[index] = nn.Linear(inputs, outputs, device="meta")
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=max(0.05, (2 / parameter[0].numel()) ** 0.5))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def ours(name: str, **options: object) -> nn.Module:
    batch_norm = name.endswith("_bn")
    return build_network(
        name.removesuffix("_bn"),
        in_channels=3,
        num_classes=6,
        hidden_units=8,
        batch_norm=batch_norm,
        **options,
    ).eval()


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
@torch.no_grad()
def test_outputs_are_equal(name):
    reference = theirs(name)
    network = load_torchvision_weights(ours(name), reference.state_dict())
    image = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(network(image), reference(image), rtol=1e-4, atol=1e-4)
    assert reference(image).std() > 1e-2  # the outputs tell something


@pytest.mark.parametrize("name", ["vgg13", "vgg16_bn", "vgg19"])
def test_every_weight_arrives(name):
    reference = theirs(name)
    network = load_torchvision_weights(ours(name), reference.state_dict())
    convs = [[m.weight for m in n.modules() if isinstance(m, nn.Conv2d)] for n in (network, reference)]
    assert all(torch.equal(a, b) for a, b in zip(*convs, strict=True))


def test_weights_without_batch_counter():
    weights = {k: v for k, v in theirs("vgg11_bn").state_dict().items() if "num_batches" not in k}
    load_torchvision_weights(ours("vgg11_bn"), weights)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("vgg13", {}, "use the same depth"),
        ("vgg11_bn", {"norm_after_relu": True}, "norm_after_relu"),
        ("vgg11", {"image_size": 96}, "image_size 224"),
    ],
)
def test_weights_that_do_not_fit(name, options, text):
    source = "vgg11_bn" if name.endswith("_bn") else "vgg11"
    network = ours(name, **options)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(UserError, match=text):
        load_torchvision_weights(network, theirs(source).state_dict())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_as_many_layers_but_others():
    with pytest.raises(UserError, match="do not fit"):  # 16 + 3 here, 8 + 8 + 3 there
        load_torchvision_weights(ours("vgg11_bn"), theirs("vgg19").state_dict())
