"""The loader: order as a function of seed and epoch, state as two integers."""

import itertools

import pytest
import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.batches import BatchLoader
from vgg_lightning.data.splits import stratified_split

N = 103


@pytest.fixture
def tensors():
    return torch.arange(N, dtype=torch.uint8)[:, None, None, None].expand(N, 1, 28, 28), torch.arange(N)


def epoch(loader, number=0):
    loader.set_epoch(number)
    return torch.cat([batch.labels for batch in loader]).tolist()


def test_every_example_once_and_pictures_go_with_labels(tensors):
    loader = BatchLoader(*tensors, batch_size=10, shuffle=True)
    assert len(loader) == 11
    for images, labels, *_ in loader:
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
    assert sorted(epoch(loader)) == list(range(N))


def test_order_depends_on_seed_and_epoch_alone(tensors):
    first, second = (BatchLoader(*tensors, batch_size=10, shuffle=True, seed=1) for _ in range(2))
    epoch(first, 5)  # what ran before does not matter
    assert epoch(first, 3) == epoch(second, 3) != epoch(second, 4)
    assert epoch(BatchLoader(*tensors, batch_size=10, shuffle=True, seed=2), 3) != epoch(first, 3)


@pytest.mark.parametrize("stop", [0, 1, 7, 10])
def test_a_restored_loader_goes_on_with_the_next_batch(tensors, stop):
    loader = BatchLoader(*tensors, batch_size=10, shuffle=True)
    loader.set_epoch(2)
    iterator = iter(loader)
    read = [next(iterator)[1] for _ in range(stop)]
    state = loader.state_dict() if stop else {"epoch": 2, "position": 0}
    assert state == {"epoch": 2, "position": stop}

    restored = BatchLoader(*tensors, batch_size=10, shuffle=True)
    restored.load_state_dict(state)
    restored.set_epoch(2)
    rest = [batch.labels for batch in restored]
    assert torch.cat(read + rest).tolist() == epoch(loader, 2)
    assert epoch(restored, 3) == epoch(loader, 3)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_without_overlap_or_loss(tensors, world_size):
    ranks = [BatchLoader(*tensors, 10, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(itertools.chain(*map(epoch, ranks))) == list(range(N))


def test_split_is_stratified_fixed_and_disjoint():
    labels = torch.arange(10).repeat(600)
    train, val = stratified_split(labels, 500)
    assert torch.bincount(labels[val]).tolist() == [50] * 10
    assert sorted(torch.cat([train, val]).tolist()) == list(range(6000))
    torch.manual_seed(1)
    assert torch.equal(stratified_split(labels, 500)[1], val)


@pytest.mark.parametrize("val_size", [0, 1, 7, 999, 5999])
def test_split_of_any_size_is_within_one_of_each_share(val_size):
    labels = torch.arange(10).repeat(600)
    train, val = stratified_split(labels, val_size)
    assert (len(train), len(val)) == (6000 - val_size, val_size)
    counts = torch.bincount(labels[val], minlength=10)
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("val_size", [-1, 6000])
def test_split_out_of_range(val_size):
    with pytest.raises(UserError, match=r"val_size takes 0 to 5999"):
        stratified_split(torch.zeros(6000, dtype=torch.long), val_size)


def test_batches_are_made_where_the_pictures_are(tensors):
    loader = BatchLoader(*(tensor.to("meta") for tensor in tensors), batch_size=10, shuffle=True)
    assert {loader.order().device.type} == {"meta"}
    images, labels, indices, *_ = next(iter(loader))
    assert images.device.type == labels.device.type == indices.device.type == "meta"
    assert images.shape == (10, 1, 28, 28)
