"""The files of a data set: damaged in every way, fetched by many at once, read."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import default_data_dir, load, prepare
from vgg_lightning.data.sources import idx
from vgg_lightning.data.sources.catalogue import CLASSES, mnist_like_files

FILES = mnist_like_files()
WEB_PAGE = b"<!DOCTYPE html>Log in"


def raw_folder(root):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def flipped(good, file):
    content = bytearray(good.bytes_of(file))
    content[len(content) // 2] ^= 1
    return bytes(content)


def bad_content(good, file):
    """A label 200 among the labels; images of 14x56 pixels."""
    content = bytearray(good.bytes_of(file))
    if file.kind == "labels":
        content[-1] = 200
    else:
        content[8:16] = bytes([0, 0, 0, 14, 0, 0, 0, 56])
    return bytes(content)


def fewer(good, file):
    """A sound file of one item less, as its header says."""
    content, item = good.bytes_of(file), 784 if file.kind == "images" else 1
    count = int.from_bytes(content[4:8], "big") - 1
    return content[:4] + count.to_bytes(4, "big") + content[8:-item]


def other(good, file):
    """The next of the four files."""
    return good.bytes_of(FILES[(FILES.index(idx.IdxFile(file.name, file.kind)) + 1) % 4])


# What lies in the place of a raw file (None: a folder), and what is said of it.
RAW_FAULTS = {
    "a flipped bit": (flipped, "damaged"),
    "short": (lambda good, file: good.bytes_of(file)[:-3], "bytes long"),
    "long": (lambda good, file: good.bytes_of(file) + b"\0", "bytes long"),
    "empty": (lambda good, file: b"", "is empty"),
    "a web page": (lambda good, file: WEB_PAGE, "a web page"),
    "another file": (other, "not"),
    "a wrong magic number": (
        lambda good, file: b"\0\0\x0d\3" + good.bytes_of(file)[4:],
        "begins with 00000d03",
    ),
    "bad content": (bad_content, "label 200|14x56 pixels"),
    "a wrong count": (fewer, "says that it holds"),
    "a folder": (None, "is a folder"),
}
# What lies there as .gz, the raw file being missing.
GZ_FAULTS = {
    "a .gz cut short": (lambda good, file: (good.gz / f"{file.name}.gz").read_bytes()[:-9], "ends early"),
    "a web page called .gz": (lambda good, file: WEB_PAGE, "a web page"),
}


def lay(good, file, fault, folder):
    """Fill `folder` with sound files, but for one; return the path of that one and what is said of it."""
    for sound in good.dataset.files:
        if sound != file:
            (folder / sound.name).symlink_to(good.raw / sound.name)
    make, said = (RAW_FAULTS | GZ_FAULTS)[fault]
    path = folder / (file.name if fault in RAW_FAULTS else f"{file.name}.gz")
    if make is None:
        path.mkdir()
    else:
        path.write_bytes(make(good, file))
    return path, said


@pytest.mark.parametrize("number", range(4), ids=[file.name[:12] for file in FILES])
@pytest.mark.parametrize("fault", RAW_FAULTS | GZ_FAULTS)
def test_every_fault_is_refused_in_one_line_and_then_repaired(good, number, fault, root, offline, monkeypatch, capfd):
    file, folder = good.dataset.files[number], raw_folder(root)
    path, said = lay(good, file, fault, folder)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(UserError) as refused:
        prepare(root)
    summary, *sources = str(refused.value).splitlines()
    assert file.name in summary
    assert len(sources) == 4
    err = capfd.readouterr().err
    assert any(word in summary + err for word in said.split("|"))
    assert ("passing over" in err) == (fault in GZ_FAULTS)
    assert path.is_dir() if before is None else path.read_bytes() == before

    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", good.gz.as_uri())
    prepared = prepare(root)
    assert "verified files in the data folder" in prepared.source
    assert good.gz.as_uri() in prepared.source
    assert prepared.checksums == {sound.name: sound.sha256 for sound in good.dataset.files}
    if fault in GZ_FAULTS:
        assert path.read_bytes() == before, "a file laid by hand is the user's"
        path.unlink()
    assert good.is_in(folder)


def test_every_single_flipped_bit_is_noticed(tiny, root):
    shutil.copytree(tiny.raw, raw_folder(root), dirs_exist_ok=True)
    file = tiny.dataset.files[3]
    path, content = raw_folder(root) / file.name, tiny.bytes_of(file)
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(idx.Fault):
            idx.verify(path, file)


def test_a_change_that_keeps_size_and_time_is_noticed_at_the_next_start(tiny, root, offline):
    shutil.copytree(tiny.raw, raw_folder(root), dirs_exist_ok=True)
    prepare(root)
    path = raw_folder(root) / FILES[0].name
    times = path.stat()
    path.write_bytes(flipped(tiny, FILES[0]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match="is damaged"):
        prepare(root)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")], ids=["pipe", "dead link"])
def test_what_is_no_regular_file_is_replaced(tiny, root, offline, monkeypatch, make):
    make(raw_folder(root) / FILES[0].name)
    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", tiny.gz.as_uri())
    prepare(root)
    assert tiny.is_in(raw_folder(root))


def test_a_folder_with_content_is_never_removed(tiny, root, offline, monkeypatch):
    precious = raw_folder(root) / FILES[0].name / "precious"
    precious.mkdir(parents=True)
    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", tiny.gz.as_uri())
    with pytest.raises(UserError, match="not empty: move it away"):
        prepare(root)
    assert precious.exists()


@contextmanager
def nobody():
    """Run as somebody whom permissions bind, which root is not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def open_root():
    """A data folder that everybody can reach, unlike pytest's."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o755)
    yield root
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    shutil.rmtree(root)


def test_a_read_only_folder_with_sound_files_works(tiny, open_root):
    shutil.copytree(tiny.raw, raw_folder(open_root), dirs_exist_ok=True)
    raw_folder(open_root).chmod(0o555)
    with nobody():
        assert prepare(open_root).source == "verified files in the data folder"
    assert not (raw_folder(open_root) / ".lock").exists()


def test_a_read_only_folder_without_files_is_refused_in_one_line(tiny, open_root, offline):
    open_root.chmod(0o555)
    with nobody(), pytest.raises(UserError) as refused:
        prepare(open_root)
    assert "Permission denied" in str(refused.value)
    assert "VGG_LIGHTNING_DATA" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unreadable_file_is_replaced(tiny, open_root, offline, monkeypatch):
    shutil.copytree(tiny.raw, raw_folder(open_root), dirs_exist_ok=True)
    raw_folder(open_root).chmod(0o777)
    (raw_folder(open_root) / FILES[0].name).chmod(0)
    shutil.copytree(tiny.gz, open_root / "mirror")
    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", (open_root / "mirror").as_uri())
    with nobody():
        prepare(open_root)
    assert tiny.is_in(raw_folder(open_root))


def test_a_file_in_the_place_of_the_data_folder_is_refused(tiny, root, offline):
    (root / "file").touch()
    with pytest.raises(UserError, match="choose another folder"):
        prepare(root / "file")


def test_the_data_folder_is_chosen_by_option_then_variable_then_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("VGG_LIGHTNING_DATA", raising=False)
    assert default_data_dir() == tmp_path / ".cache" / "vgg_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_data_dir() == tmp_path / ".cache" / "vgg_lightning"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_data_dir() == tmp_path / "xdg" / "vgg_lightning"
    monkeypatch.setenv("VGG_LIGHTNING_DATA", "~/own")
    assert default_data_dir() == tmp_path / "own"


def test_load_gives_the_images_and_labels_of_the_files(tiny, root):
    shutil.copytree(tiny.raw, raw_folder(root), dirs_exist_ok=True)
    for split, number, count in (("train", 0, 50), ("test", 2, 20)):
        images, labels = load(root, split)
        assert (images.dtype, images.shape) == (torch.uint8, (count, 1, 28, 28))
        assert (labels.dtype, labels.shape) == (torch.int64, (count,))
        assert images.numpy().tobytes() == tiny.bytes_of(FILES[number])[16:]
        assert labels.to(torch.uint8).numpy().tobytes() == tiny.bytes_of(FILES[number + 1])[8:]
        images += 1  # one's own memory: nothing else is changed by it, and nothing warns


def test_load_gives_fashion_mnist(fashion_mnist_dir):
    images, labels = load(fashion_mnist_dir, "train")
    assert images.shape == (60_000, 1, 28, 28)
    assert labels.bincount().tolist() == [6000] * 10
    assert round(images.double().mean().item() / 255, 4) == 0.2860
    assert len(CLASSES) == 10
    assert CLASSES[labels[0]] == "ankle boot"


@pytest.mark.parametrize("fault", [fault for fault in RAW_FAULTS if fault != "a flipped bit"])
def test_load_checks_the_structure(tiny, root, fault):
    lay(tiny, tiny.dataset.files[1], fault, raw_folder(root))
    with pytest.raises(UserError, match=f"{FILES[1].name} .*run `vgg-lightning data"):
        load(root, "train")


def test_an_unknown_dataset_is_refused():
    with pytest.raises(UserError, match=r"did you mean fashion_mnist\?"):
        prepare(dataset="fashion-mnist")
