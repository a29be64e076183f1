"""The shapes and counts that the papers and the textbook print, on the meta device."""

import math
from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.networks import NETWORKS, build_network
from vgg_lightning.networks.cost import LARGEST, summarize

VGG11 = [(64, 112, 112), (128, 56, 56), (256, 28, 28), (512, 14, 14), (512, 7, 7)]
CLASSIC = [(4096,), (4096,), (10,)]
ALEXNET = [(96, 54, 54), (96, 26, 26), (256, 26, 26), (256, 12, 12), (384, 12, 12), (384, 12, 12)]
NIN = [(96, 54, 54), (96, 26, 26), (256, 26, 26), (256, 12, 12), (384, 12, 12), (384, 5, 5), (10, 5, 5)]
STEM = [(64, 24, 24)]
DENSE = [(192, 24, 24), (96, 12, 12), (224, 12, 12), (112, 6, 6), (240, 6, 6), (120, 3, 3), (248, 3, 3)]
GOOGLENET = [(64, 24, 24), (192, 12, 12), (480, 6, 6), (832, 4, 4), (1024, 4, 4), (1024,), (10,)]
RESNET = [(64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7), (512,), (10,)]
# LeNet's are worked out by hand: 28 - 4 = 24, half is 12, less 4 is 8, half is 4.
LENET = [(6, 24, 24), (6, 12, 12), (16, 8, 8), (16, 4, 4), (256,), (120,), (84,), (10,)]
GLOBAL_POOLING = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d
SILENT = nn.ReLU | nn.Dropout | nn.Sigmoid | nn.BatchNorm2d | nn.BatchNorm1d | GLOBAL_POOLING

PRINTED = {
    "vgg11": (224, {}, [*VGG11, (25088,), *CLASSIC]),
    "vgg11, ratio 4": (224, {"ratio": 4}, [*((c // 4, h, w) for c, h, w in VGG11), (6272,), *CLASSIC]),
    "whitened_vgg": (28, {}, [(16, 14, 14), (64, 7, 7), (128, 3, 3), (128, 3, 3), (128,), (10,)]),
    "deep_whitened_vgg, ratio 2": (
        *(28, {"ratio": 2}, [(16, 28, 28), (48, 14, 14), (96, 7, 7), (192, 3, 3), (192,), (10,)]),
    ),
    "alexnet": (224, {}, [*ALEXNET, (256, 12, 12), (256, 5, 5), (6400,), *CLASSIC]),
    "nin": (224, {}, [*NIN, (10,)]),
    "googlenet": (96, {}, GOOGLENET),
    "lenet": (28, {}, LENET),
    "resnet18": (224, {}, RESNET),
    "densenet": (96, {}, [*STEM, *DENSE, (248,), (10,)]),
}


def on_meta(name: str, image_size: int, **options: object) -> nn.Module:
    with torch.device("meta"):
        return build_network(name, image_size=image_size, **options)


def logits_shape(network: nn.Module, size: int, channels: int = 1) -> tuple[int, ...]:
    return tuple(network(torch.empty(2, channels, size, size, device="meta")).shape)


def chain_shapes(network: nn.Module, size: int) -> list[tuple[int, ...]]:
    """Return the output shapes of the children of `blocks` and `head`, activations left out."""
    x, shapes = torch.empty(2, 1, size, size, device="meta"), []
    for layer in [*network.blocks, *network.head]:
        x = layer(x)
        if not isinstance(layer, SILENT):
            shapes.append(tuple(x.shape[1:]))
    return shapes


@pytest.mark.parametrize("case", PRINTED)
def test_printed_shapes(case):
    size, options, printed = PRINTED[case]
    assert chain_shapes(on_meta(case.split(",")[0], size, **options), size) == printed


def test_lenet_on_the_batch_norm_from_scratch_has_the_same_layers():
    ours, library = (on_meta(name, 28).state_dict() for name in ("lenet_scratch", "lenet"))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in library.items()}


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vgg_has_as_many_parameters_as_torchvisions(name, batch_norm):
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name + "_bn" * batch_norm)
    ours = on_meta(name, 224, in_channels=3, num_classes=1000, batch_norm=batch_norm)
    # Behind a BatchNorm a bias does nothing: torchvision keeps it, the network here has none.
    biases = sum(m.out_channels for m in ours.modules() if isinstance(m, nn.Conv2d) and m.bias is None)
    assert count(ours) + biases == count(theirs)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# One channel and ten classes; the first three counts are those of d2l's versions of these networks.
@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("alexnet", 224, 46_764_746),
        ("resnet18", 224, 11_178_378),
        ("densenet", 96, 758_226),
        ("whitened_vgg", 28, 232_480),  # 160 + 9,216 + 73,728 + 147,456 in convolutions, 640 in BatchNorm, 1,280
        ("deep_whitened_vgg", 28, 2_591_776),
    ],
)
def test_parameter_counts(name, size, parameters):
    assert count(on_meta(name, size)) == parameters


SMALLEST = {
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), 32),
    **{"alexnet": 65, "nin": 67, "googlenet": 1, "lenet": 16, "lenet_scratch": 16, "resnet18": 1},
    **{"densenet": 29, "whitened_vgg": 8, "deep_whitened_vgg": 8, "vgg_small": 8, "vgg_wide": 8},
}


def test_every_network_has_a_smallest_size():
    assert set(SMALLEST) == set(NETWORKS)


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_size_works_and_one_less_is_refused(name):
    smallest = SMALLEST[name]
    assert logits_shape(on_meta(name, smallest), smallest) == (2, 10)
    with pytest.raises(UserError, match=rf"image_size {smallest - 1} is too small.* {smallest}\b"):
        on_meta(name, smallest - 1)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_layers_themselves_refuse_what_is_refused(name):
    size = SMALLEST[name] - 1
    if size:  # so the check is not stricter than the network
        with pytest.raises(RuntimeError):
            on_meta(name, SMALLEST[name]).blocks(torch.empty(2, 1, size, size, device="meta"))


@pytest.mark.parametrize("size", [67, 68, 71, 96, 97, 128, 224, 225])
@pytest.mark.parametrize("name", NETWORKS)
def test_other_sizes_channels_and_classes(name, size):
    network = on_meta(name, size, in_channels=3, num_classes=7)
    assert logits_shape(network, size, channels=3) == (2, 7)


@pytest.mark.parametrize("head", ["classic", "batchnorm", "gap"])
@pytest.mark.parametrize("norm", [{}, {"batch_norm": True}, {"batch_norm": True, "norm_after_relu": True}])
def test_vgg_heads_and_norms(head, norm):
    assert logits_shape(on_meta("vgg13", 40, head=head, ratio=8, hidden_units=20, **norm), 40) == (2, 10)


def test_order_of_norm_and_relu():
    for after, order in (
        (False, ["Conv2d", "BatchNorm2d", "ReLU"]),
        (True, ["Conv2d", "ReLU", "BatchNorm2d"]),
    ):
        block = on_meta("vgg11", 32, batch_norm=True, norm_after_relu=after).blocks[0]
        assert [type(layer).__name__ for layer in block] == [*order, "MaxPool2d"]


def test_all_networks_learn_on_real_numbers():
    torch.manual_seed(0)
    x, y = torch.rand(4, 1, 67, 67), torch.tensor([0, 1, 2, 3])
    small = {"vgg": {"ratio": 16, "hidden_units": 32}, "ale": {"hidden_units": 32}}
    for name in NETWORKS:
        network = build_network(name, image_size=67, **small.get(name[:3], {}))
        nn.functional.cross_entropy(network(x), y).backward()
        trained = [p for p in network.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained), name


@pytest.mark.parametrize("option", ["image_size", "in_channels", "num_classes"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_largest_value_of_an_option_can_be_counted(name, option):
    summary = summarize(name, **{"image_size": 96, option: LARGEST})
    assert summary.memory.training > 0


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            partial(build_network, "vgg12"),
            r"'vgg12' is unknown \(did you mean vgg1\d|9\?\): use one of vgg11, vgg13",
        ),
        (partial(build_network, "alexnett"), r"did you mean alexnet\?"),
        (
            partial(build_network, "vgg11", rato=4),
            r"no option 'rato' \(did you mean ratio\?\): it has in_channels",
        ),
        (
            partial(build_network, "lenet", norms=1),
            r"lenet has no option 'norms': it has in_channels, num_classes",
        ),
        (partial(build_network, "vgg11", arch=()), r"no option 'arch'"),
        (partial(build_network, "vgg11", ratio=3), r"ratio 3 .*use one of 1, 2, 4, 8, 16, 32, 64"),
        (partial(build_network, "whitened_vgg", ratio=3), r"ratio 3 .*use one of 1, 2, 4"),
        (partial(build_network, "vgg11", head="gab"), r"did you mean gap\?"),
        (partial(build_network, "vgg11", dropout=1.5), r"dropout 1.5"),
        (partial(build_network, "vgg11", norm_after_relu=True), r"batch_norm"),
        (partial(build_network, "resnet18", in_channels=0), r"in_channels 0 is too small"),
        (partial(build_network, "resnet18", num_classes=-1), r"num_classes -1 is too small"),
        (
            partial(summarize, "vgg11", image_size=10**10),
            r"image_size 10000000000 is too large: use 1000000 or less",
        ),
        (partial(summarize, "vgg11", hidden_units=2**63 - 1), r"hidden_units 9223372036854775807 is too large"),
        (partial(summarize, "lenet", num_classes=10**20), r"num_classes 100000000000000000000 is too large"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(UserError, match=text) as error:
        call()
    assert "\n" not in str(error.value)


def test_flatten_follows_the_image_size():
    for size in (28, 31, 64, 224):
        linear = next(m for m in on_meta("lenet", size).modules() if isinstance(m, nn.Linear))
        assert linear.in_features == 16 * math.floor((math.floor((size - 4) / 2) - 4) / 2) ** 2
