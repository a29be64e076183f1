"""A run folder from elsewhere may hold links where files are expected: nothing that they point to is touched."""

import os
import shutil

import pytest
from small import data_options, fit, launch

from vgg_lightning.base.files import part_of, write_whole

KEY = b"-----BEGIN A KEY THAT NOBODY MAY OVERWRITE-----\n"
WRITTEN = [
    *("config.yaml", "results.json", "metrics.csv", "hparams.yaml", "predictions.csv", "predictions.json"),
    *("projector_config.pbtxt", "00002/features/metadata.tsv", "00002/features/tensors.tsv"),
    *("00004/features/metadata.tsv", "00004/features/sprite.png"),
]
PARTIAL = [
    *(".metrics.csv.part", ".results.json.part", ".config.yaml.part", ".predictions.probe", ".predictions.csv.part"),
    *("checkpoints/.probe.ckpt.part", "checkpoints/.last.ckpt.part", "checkpoints/.best.ckpt.part"),
    *("checkpoints/.last-prev.ckpt.part", "checkpoints/.best-prev.ckpt.part", ".probe.part", ".lock"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps."""
    folder = tmp_path_factory.mktemp("links")
    assert fit(folder).code == 0
    return next(folder.rglob("version_0"))


@pytest.mark.parametrize("kind", ["a link to a file", "a link to nothing", "a second name of a file"])
def test_nothing_is_written_through_a_link(run, tmp_path, kind):
    got = shutil.copytree(run, tmp_path / "lightning_logs" / "got" / "version_0")
    outside, before = tmp_path / "home", {}
    outside.mkdir()
    for number, name in enumerate([*WRITTEN, *PARTIAL]):
        target, place = outside / f"key_{number}", got / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind != "a link to nothing":
            target.write_bytes(place.read_bytes() if place.is_file() else KEY)
            before[target] = target.read_bytes()
        place.unlink(missing_ok=True)
        (os.link if kind == "a second name of a file" else os.symlink)(target, place)
    said = fit(tmp_path, "--ckpt_path", str(got), "--trainer.max_epochs", "2", "--show", "all")
    assert said.code == 0, said
    said = launch(["predict", "--ckpt_path", str(got), *data_options()], tmp_path)
    assert said.code == 0, said
    assert {file: file.read_bytes() for file in outside.iterdir()} == before
    for name in ("config.yaml", "results.json", "metrics.csv", "hparams.yaml", "predictions.csv"):
        assert (got / name).is_file()
        assert not (got / name).is_symlink()
    assert (got / "projector_config.pbtxt").stat().st_nlink == 1


@pytest.mark.parametrize("dangling", [False, True])
def test_predictions_of_own_pictures_replace_a_link(run, tmp_path, dangling):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    Image.linear_gradient("L").save(tmp_path / "pictures" / "a.png")
    for name in ("predictions.csv", "predictions.json", ".predictions.probe"):
        target = tmp_path / f"key {name}"
        if not dangling:
            target.write_bytes(KEY)
        (tmp_path / name).symlink_to(target)
    said = launch(["predict", "--ckpt_path", str(run), "--data.predict_path", str(tmp_path / "pictures")], tmp_path)
    assert said.code == 0, said
    for name in ("predictions.csv", "predictions.json", ".predictions.probe"):
        target = tmp_path / f"key {name}"
        assert not target.exists() if dangling else target.read_bytes() == KEY


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    write_whole(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_two_processes_write_under_names_of_their_own(tmp_path):
    assert part_of(tmp_path / "a") != part_of(tmp_path / "a")
    assert str(os.getpid()) in part_of(tmp_path / "a").name


@pytest.mark.parametrize("kind", ["a link", "a link to nothing", "a second name"])
def test_the_locks_of_a_search_are_not_behind_links(tmp_path, kind):
    pytest.importorskip("optuna")
    from vgg_lightning.sweep.study import hold_alive, lock

    search = tmp_path / "search"
    search.mkdir()
    for name in (".alive", ".lock"):
        target = tmp_path / f"key{name}"
        if kind != "a link to nothing":
            target.write_bytes(KEY)
            os.utime(target, (1, 1))
        (os.link if kind == "a second name" else os.symlink)(target, search / name)
    with lock(search), hold_alive(search, exclusive=True):
        assert hold_alive(search, exclusive=True) is None
    for name in (".alive", ".lock"):
        target = tmp_path / f"key{name}"
        assert not (search / name).is_symlink()
        assert not target.exists() if kind == "a link to nothing" else target.read_bytes() == KEY
        assert kind == "a link to nothing" or target.stat().st_mtime == 1
