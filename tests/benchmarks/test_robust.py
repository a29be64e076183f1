"""Photographs that benchmarks.robust makes of images, and what it writes about them."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reliability"))
from small import data_folder

from benchmarks import robust
from vgg_lightning.data.images.decode import pixels_of


def shirt():
    """A T that fills its image, with a hole and a dark side."""
    image = np.zeros((28, 28), np.uint8)
    image[:8] = 200
    image[8:, 8:20] = 150
    image[12:14, 12:14] = 0
    return image


def made(change, seed=0):
    return robust.photograph(shirt(), {change}, np.random.default_rng(seed))


def test_without_a_change_the_image_comes_back():
    back = pixels_of(robust.as_file(robust.photograph(shirt(), set(), np.random.default_rng(0))))
    assert np.abs(back.astype(int) - shirt()).mean() < 6


def test_the_silhouette_has_the_hole_and_not_the_background():
    solid = robust.silhouette(shirt())
    assert solid[12:14, 12:14].all()
    assert not solid[8:, :8].any()
    assert solid.sum() == (shirt() > 0).sum() + 4


@pytest.mark.parametrize("change", robust.CHANGES)
def test_every_change_changes_the_photograph_and_is_drawn_again_alike(change):
    image, again, other = made(change), made(change), made(change, seed=1)
    plain = robust.photograph(shirt(), set(), np.random.default_rng(0))
    assert image.tobytes() == again.tobytes()
    if change == "mirrored":
        assert other.size != image.size  # its margin alone is drawn
    assert image.tobytes() != other.tobytes()
    if change != "mirrored":  # of a thing that is symmetrical
        assert image.tobytes() != plain.tobytes()


def test_changes_are_what_they_are_called():
    plain = np.asarray(made("unchanged"))
    assert (plain[0] == 255).all()
    assert np.ptp(np.asarray(made("coloured paper"))[0, 0]) > 10
    shaded = np.asarray(made("shaded paper"))
    corners = shaded[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert np.ptp(corners) > 40
    assert np.asarray(made("bright")).min() > 160
    assert np.asarray(made("cut off"))[[0, -1]].min() < 120 or np.asarray(made("cut off"))[:, [0, -1]].min() < 120
    assert (np.asarray(made("thin margin"))[3] < 120).any()
    wide = np.asarray(made("wide margin"))
    assert (wide < 128).any(axis=2).mean() < 0.8 * (plain < 128).any(axis=2).mean()


def test_together_is_several_and_shoes_alone_stand():
    for seed in range(50):
        names = robust.drawn(robust.TOGETHER, np.random.default_rng(seed), 0)
        assert 2 <= len(names) <= 5
        assert "standing" not in names
    assert any("standing" in robust.drawn(robust.TOGETHER, np.random.default_rng(seed), 7) for seed in range(50))


def test_rows_of_both_splits_stand_beside_each_other(tmp_path, capsys):
    table = tmp_path / "robust.csv"
    line = ["--images", "20", "--only", "bright", "standing", "--table", str(table), "--data_dir", str(data_folder())]
    for split in ("val", "test", "val"):
        robust.main([*line, "--split", split])
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["split"], row["change"]) for row in rows] == [
        *(("val", "bright"), ("val", "standing")),
        *(("test", "bright"), ("test", "standing")),
    ]
    for row in rows:
        assert 0 <= int(row["caused"]) <= int(row["images"]) <= 20
        right_before = round(float(row["unchanged"]) * int(row["images"]))
        assert right_before - int(row["caused"]) <= round(float(row["accuracy"]) * int(row["images"]))
    assert "errors caused" in capsys.readouterr().out
