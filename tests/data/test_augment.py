"""Augmentations of whole batches against slow ones that treat image by image."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import functional as tv

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.augment import AUGMENTATIONS, MIXES, Augment, Place
from vgg_lightning.data.augment.mixes import cutmix, mixup
from vgg_lightning.data.augment.moves import crop, shift
from vgg_lightning.data.augment.patches import FILL, cutout, erase
from vgg_lightning.data.augment.photo import _cut_off, photo
from vgg_lightning.data.augment.warps import affine, randaugment, retone, tone, warp

ALL = [*AUGMENTATIONS, *MIXES]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (200, 1, 28, 28), dtype=torch.uint8, generator=generator())


def place(n, **where):
    return Place(**{"seed": 1, "epoch": 0, "batch": 1, "rank": 0, "indices": torch.arange(n), "size": n, **where})


def augmented(names, images, **where):
    augment, where = Augment(names), place(len(images), **where)
    return augment.mix(augment(images, where), torch.arange(len(images)) % 10, where)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (1, 1, 28, 28), (0, 1, 28, 28), (5, 3, 28, 28)])
def test_every_batch_keeps_its_form_and_its_sum_of_labels(name, shape):
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator())
    pictures, targets = augmented([name], batch)
    assert (pictures.dtype, pictures.shape) == (torch.uint8, shape)
    if name in MIXES:
        assert torch.allclose(targets.sum(1), torch.ones(len(batch)))
    else:
        assert torch.equal(targets, torch.arange(len(batch)) % 10)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_depends_on_its_place_and_on_nothing_else(images, name):
    first = augmented([name], images)
    torch.manual_seed(99)
    torch.rand(5)
    second = augmented([name], images)
    other = augmented([name], images, epoch=1, batch=2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", [n for n in ALL if n != "alternating_flip"])
def test_every_picture_has_draws_of_its_own(name):
    same = torch.randint(1, 256, (1, 1, 28, 28), dtype=torch.uint8, generator=generator()).expand(64, -1, -1, -1)
    if name in MIXES:  # with a partner that differs
        same = torch.cat([same, 255 - same])
    pictures = augmented([name], same)[0][:64]
    assert len(pictures.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize(("move", "mode"), [(shift, "constant"), (crop, "reflect")])
def test_shift_and_crop_are_windows_of_the_padded_picture(images, move, mode):
    padded = F.pad(images.float(), (3, 3, 3, 3), mode=mode).to(torch.uint8)
    for picture, big in zip(move(images, generator(), pixels=3), padded, strict=True):
        windows = [big[:, y : y + 28, x : x + 28] for y in range(7) for x in range(7)]
        assert any(torch.equal(picture, window) for window in windows)


def erased_box(before, after):
    """Return area, height and width of what changed in an image without grey levels of FILL."""
    ys, xs = (before != after)[0].nonzero().T
    if not len(ys):
        return 0, 0, 0
    height, width = int(ys.max() - ys.min() + 1), int(xs.max() - xs.min() + 1)
    assert (after[0, ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] == FILL).all()
    return len(ys), height, width


def test_erase_hides_rectangles_of_the_shares_that_are_asked_for():
    white = torch.full((2000, 1, 28, 28), 255, dtype=torch.uint8)
    boxes = [erased_box(*pair) for pair in zip(white, erase(white, generator(), None, 0.5, 0.02, 0.4), strict=True)]
    areas = torch.tensor([area / 784 for area, _, _ in boxes if area])
    assert all(area == height * width for area, height, width in boxes)
    assert 0.46 < len(areas) / len(boxes) < 0.54
    assert areas.min() > 0.01
    assert areas.max() < 0.43
    assert areas.mean() == pytest.approx(0.21, abs=0.015)
    ratios = torch.tensor([height / width for area, height, width in boxes if area > 60])
    assert ratios.min() > 0.2
    assert ratios.max() < 5
    assert ratios.log().mean().abs() < 0.1


@pytest.mark.parametrize("name", ["erase:1.0", "cutout"])
def test_what_is_hidden_gets_the_mean_of_the_data_at_hand(name):
    white = torch.full((50, 1, 28, 28), 255, dtype=torch.uint8)
    place = Place(0, 0, 0, 0, torch.arange(50), 50)
    assert set(Augment([name])(white, place).unique().tolist()) == {FILL, 255} == {73, 255}
    assert set(Augment([name], fill=200)(white, place).unique().tolist()) == {200, 255}
    assert torch.equal(Augment([name])(white, place) == 73, Augment([name], fill=200)(white, place) == 200)


def test_cutout_hides_a_square_that_the_edges_cut_off():
    white = torch.full((2000, 1, 28, 28), 255, dtype=torch.uint8)
    boxes = [erased_box(*pair) for pair in zip(white, cutout(white, generator(), None, 8), strict=True)]
    assert {height for _, height, _ in boxes} == {width for _, _, width in boxes} == set(range(4, 9))
    inside = sum(height == width == 8 for _, height, width in boxes) / len(boxes)
    assert inside == pytest.approx((21 / 28) ** 2, abs=0.04)


def test_warp_equals_torchvisions_affine_picture_by_picture():
    smooth = F.avg_pool2d(torch.rand(6, 1, 30, 30, generator=generator()), 3, stride=1).mul(255).to(torch.uint8)
    degrees = torch.tensor([0.0, 30.0, -10.0, 5.0, 0.0, 12.0])
    move = torch.tensor([[0, 2, -3, 0, 1, -1], [1, 0, 2, 0, 0, 3]])
    scale = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.2, 1.0])
    shear = torch.tensor([0.0, 0.0, 8.0, -12.0, 5.0, 3.0])
    zero = torch.zeros(6)
    got = warp(smooth, degrees.deg2rad(), shear.deg2rad().tan(), zero, move.float(), scale)
    for i, picture in enumerate(smooth):
        how = (float(degrees[i]), move[:, i].tolist(), float(scale[i]), [-float(shear[i]), 0.0])
        expected = tv.affine(picture, *how, interpolation=tv.InterpolationMode.BILINEAR)
        assert (got[i].int() - expected.int()).abs().max() <= 1, i


def test_retone_is_a_line_through_the_mean_and_spares_the_black_ground(images):
    light, contrast = torch.linspace(-0.2, 0.2, 200), torch.linspace(0.5, 1.5, 200)
    got = retone(images, light, contrast)
    for i in (0, 77, 199):
        levels = images[i].double()
        line = ((levels - levels.mean()) * contrast[i] + levels.mean() + 255 * light[i]).round().clamp(0, 255)
        assert (torch.where(levels > 0, line, 0) - got[i].double()).abs().max() <= 1
    assert (got[images == 0] == 0).all()


def test_the_amounts_of_affine_tone_and_randaugment_bound_what_changes(images):
    for still in (affine(images, generator(), None, 0, 0, 0, 0), tone(images, generator(), None, 0, 0)):
        assert torch.equal(still, images)
    assert torch.equal(randaugment(images, generator(), None, 3, 0.0), images)
    dot = torch.zeros(500, 1, 28, 28, dtype=torch.uint8)
    dot[:, 0, 13:15, 13:15] = 255
    moved = affine(dot, generator(), None, degrees=0, pixels=3, scale=0, shear=0).float()[:, 0]
    rows = (moved.sum(2) * torch.arange(28)).sum(1) / moved.sum((1, 2)) - 13.5
    assert rows.abs().max() <= 3.05
    assert rows.std() == pytest.approx(3 / math.sqrt(3), rel=0.1)
    small, large = ((randaugment(images, generator(), None, 2, m).float() - images).abs().mean() for m in (0.1, 0.8))
    assert small < large


def reference_cutmix(images, targets, rng, alpha, p):
    """The same draws, applied image by image."""
    n = len(images)
    other, chosen = torch.randperm(n, generator=rng), torch.rand(n, generator=rng) < p
    share, centre = torch.rand(n, generator=rng), torch.rand(2, n, generator=rng)
    pictures, mixed = images.clone(), targets.clone()
    for i in range(n):
        side = float(share[i]) ** 0.5 if chosen[i] else 0.0
        top, bottom, left, right = (
            min(max(round(28 * (float(centre[axis, i]) + sign * side / 2)), 0), 28)
            for axis in (0, 1)
            for sign in (-1, 1)
        )
        pictures[i, :, top:bottom, left:right] = images[other[i], :, top:bottom, left:right]
        area = (bottom - top) * (right - left) / 784
        mixed[i] = (1 - area) * targets[i] + area * targets[other[i]]
    return pictures, mixed


def test_cutmix_equals_a_loop_over_the_pictures(images):
    targets = F.one_hot(torch.arange(200) % 10, 10).float()
    got, expected = (
        cutmix(images, targets, generator(), 1.0, 0.5),
        reference_cutmix(images, targets, generator(), 1, 0.5),
    )
    assert torch.equal(got[0], expected[0])
    assert torch.allclose(got[1], expected[1], atol=1e-6)
    untouched = (got[1].max(dim=1).values == 1).float().mean()  # also where a partner is of the same class
    assert 0.4 < untouched < 0.7


def test_mixup_weighs_pictures_as_labels():
    black_and_white = torch.cat([torch.zeros(500, 1, 28, 28), torch.full((500, 1, 28, 28), 255.0)]).to(torch.uint8)
    targets = F.one_hot(torch.arange(1000) // 500, 2).float()
    pictures, mixed = mixup(black_and_white, targets, generator(), alpha=0.4)
    assert torch.allclose(pictures[:, 0, 0, 0] / 255, mixed[:, 1], atol=1 / 255)
    share = (mixed[:, 1] - targets[:, 1]).abs()
    share = share[share > 0]  # of images whose partner is of the other kind
    assert share.mean() == pytest.approx(0.5, abs=0.05)
    assert share.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.15)  # of Beta(0.4, 0.4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crops", "did you mean crop"),
        ("crop:x", "crop:PIXELS"),
        ("crop:2.5", "a whole number from 0 to 14"),
        ("crop:15", "0 to 14"),
        ("crop:", "crop:PIXELS"),
        ("flip:1", "too many values"),
        ("erase:0.5:0.1:0.2:9", "erase:P:LEAST:MOST"),
        ("erase:1.5", "P is a number from 0 to 1"),
        ("cutmix:nan", "ALPHA is a number"),
        ("mixup:0", "0.01 to 100"),
    ],
)
def test_mistakes_are_one_line(name, words):
    with pytest.raises(UserError, match=words) as error:
        Augment([name])
    assert "augment takes" in str(error.value)
    assert "\n" not in str(error.value)


# Photo.


def test_a_photograph_of_nothing_special_is_the_image(images):
    assert torch.equal(photo(images, generator(), p=0), images)


@pytest.mark.parametrize("side", range(4))
def test_what_is_cut_off_is_gone_and_the_rest_is_brought_to_the_middle(side):
    garment = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    garment[..., 0:28, 4:24] = 200  # higher than wide
    cut, move, scale = _cut_off(garment, torch.tensor([0.25]), torch.tensor([side]))
    rows, columns = (int((cut[0, 0] > 0).any(dim=dim).sum()) for dim in (1, 0))
    assert (rows, columns) == ((28, 13) if side < 2 else (21, 20))
    assert float(scale) == pytest.approx(1 if side < 2 else 28 / 21)
    middle = warp(cut, *[torch.zeros(1)] * 3, move, scale)[0, 0] > 100
    shown = middle.any(dim=0 if side < 2 else 1).nonzero()
    assert abs(float(shown.float().mean()) - 13.5) <= 0.5


def test_photographs_keep_a_garment_and_differ_in_contrast_and_texture():
    garment = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    garment[..., 6:22, 6:22] = torch.randint(100, 256, (16, 16), generator=generator()).to(torch.uint8)
    seen = photo(garment, generator(), p=1.0).float()
    texture = torch.stack(
        [image[image > 60].std() / image[image > 60].mean() for image in seen if (image > 60).sum() > 20]
    )
    plain = garment[0][garment[0] > 0].float()
    assert texture.min() < 0.05 < float(plain.std() / plain.mean())
    brightest = seen.flatten(1).amax(dim=1)
    assert brightest.min() < 100
    assert brightest.max() > 200
    assert (seen.flatten(1) > 16).float().mean(dim=1).min() > 0.1
