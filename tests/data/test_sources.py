"""The sources of files, each as it works and as it fails, and many processes at them at once."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import time

import pytest

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.files import prepare
from vgg_lightning.data.sources import debian, download, store
from vgg_lightning.data.sources.catalogue import DATASETS


def raw(root):
    return root / "FashionMNIST" / "raw"


def parts(root):
    return [path.name for path in raw(root).glob(".*.part")] if raw(root).exists() else []


def test_leftovers_beside_sound_files_are_swept(tiny, root, offline):
    shutil.copytree(tiny.raw, raw(root))
    (raw(root) / f".{tiny.dataset.files[0].name}.1.part").touch()
    (raw(root) / ".apt.xyz.part" / "lists").mkdir(parents=True)
    prepare(root)
    assert tiny.is_in(raw(root))


def test_where_no_source_works_each_is_told_with_its_remedy(tiny, root, offline):
    begin = time.monotonic()
    with pytest.raises(UserError) as refused:
        prepare(root)
    assert time.monotonic() - begin < 5
    summary, *sources = str(refused.value).splitlines()
    assert "train-images-idx3-ubyte is missing (and 3 more)" in summary
    wanted = {
        "files laid by hand": "put the four .gz or raw files there",
        "Debian package": "for Debian and Ubuntu only",
        "download": "http://127.0.0.1:9/ cannot be reached (Connection refused): go online",
        "package archive": "for Debian and Ubuntu only",
    }
    for line, (name, remedy) in zip(sources, wanted.items(), strict=True):
        assert line.startswith(f"  {name}: ")
        assert remedy in line
    assert not parts(root)


@pytest.mark.parametrize(("form", "place"), [("gz", "."), ("raw", "."), ("gz", "FashionMNIST/raw")])
def test_files_laid_by_hand_are_taken_and_kept(tiny, root, offline, form, place):
    shutil.copytree(getattr(tiny, form), root / place, dirs_exist_ok=True)
    before = {path: path.read_bytes() for path in root.rglob("*ubyte*")}
    assert prepare(root).source == f"files laid by hand into {root}"
    assert {path: path.read_bytes() for path in before} == before
    assert all((raw(root) / file.name).read_bytes() == tiny.bytes_of(file) for file in tiny.dataset.files)


def test_a_faulty_file_laid_by_hand_is_passed_over_and_kept(tiny, root, mirror_of, capfd):
    mirror = mirror_of(tiny.gz)
    for file in tiny.dataset.files[1:]:
        shutil.copy(tiny.gz / f"{file.name}.gz", root)
    by_hand = root / "train-images-idx3-ubyte.gz"
    by_hand.write_bytes(b"\x1f\x8b rubbish")
    prepared = prepare(root)
    assert prepared.source == f"files laid by hand into {root} and download from {mirror.url}"
    assert by_hand.read_bytes() == b"\x1f\x8b rubbish"
    assert f"passing over {by_hand}: it is not a valid gzip file" in capfd.readouterr().err
    assert mirror.asked.total() == 1


def test_a_bomb_is_refused_early(tiny, root, offline, capfd):
    bomb = gzip.compress(bytes(1 << 24)) * 200  # 3 MB that unpack to 3 GB
    (root / "train-labels-idx1-ubyte.gz").write_bytes(bomb)
    begin = time.monotonic()
    with pytest.raises(UserError):
        prepare(root)
    assert "unpacks to more than 58 bytes" in capfd.readouterr().err
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(200, b"<html>Log in</html>")], "is not a valid gzip file"),
        ([(404, b"")], "answers 404 Not Found"),
        ([(503, b"")] * 3, "answers 503 Service Unavailable"),
        ([(200, b"")] * 3, "is empty"),
    ],
)
def test_a_mirror_that_answers_badly_is_named(tiny, root, mirror_of, monkeypatch, answers, said):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    mirror = mirror_of(tiny.gz)
    mirror.answers["train-images-idx3-ubyte.gz"] = list(answers)
    with pytest.raises(UserError, match=f"{mirror.url}train-images-idx3-ubyte.gz {said}.*name another mirror"):
        prepare(root)


def test_a_busy_mirror_is_asked_again(tiny, root, mirror_of, monkeypatch):
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    mirror_of(tiny.gz).answers["train-images-idx3-ubyte.gz"] = [(503, b""), (500, b"")]
    prepare(root)
    assert tiny.is_in(raw(root))


def test_an_endless_download_is_refused(tiny, root, mirror_of):
    mirror_of(tiny.gz).endless = {"train-images-idx3-ubyte.gz"}
    with pytest.raises(UserError, match=r"unpacks to more than|sends more than"):
        prepare(root)
    assert not parts(root)


ENDLESS_NAME = b"\x1f\x8b\x08\x08" + 1000 * b"a"  # a gzip header whose file name is never closed


@pytest.mark.parametrize(("seconds", "said"), [(30, "sends more than the whole file"), (0, "is too slow")])
def test_a_download_that_never_gets_to_its_data_is_refused(tiny, root, mirror_of, tmp_path, monkeypatch, seconds, said):
    monkeypatch.setattr(download, "FILE_SECONDS", seconds)
    name = "train-images-idx3-ubyte.gz"
    shutil.copytree(tiny.gz, tmp_path / "gz")
    (tmp_path / "gz" / name).write_bytes(ENDLESS_NAME)
    mirror_of(tmp_path / "gz").endless = {name}
    with pytest.raises(UserError, match=f"{name} {said}"):
        prepare(root)


def test_a_mirror_that_never_answers_is_given_up_once(tiny, root, mirror_of, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_SECONDS", 0.2)
    mirror = mirror_of(tiny.gz)
    mirror.silent = True
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached \(no answer within 0.2 s\)"):
        prepare(root)
    assert time.monotonic() - begin < 5
    assert mirror.asked.total() == 1


def test_torchvisions_mirrors_are_the_default(tiny, root, mirror_of, monkeypatch):
    from torchvision.datasets import FashionMNIST

    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/", mirror_of(tiny.gz).url])
    monkeypatch.delenv("VGG_LIGHTNING_MIRROR")
    assert prepare(root).source == f"download from {FashionMNIST.mirrors[1]}"
    assert tiny.is_in(raw(root))


def test_a_mirror_must_be_an_address(tiny, root, offline, monkeypatch):
    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", "ftp://example.org")
    with pytest.raises(UserError, match=r"VGG_LIGHTNING_MIRROR is 'ftp://example\.org': begin it with http"):
        prepare(root)


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def installed(tiny, offline):
    """A machine where the package is installed."""
    program(
        offline,
        "dpkg",
        f'[ "$*" = "-L dataset-fashion-mnist" ] && for f in "{tiny.gz}"/*; do echo "$f"; done',
    )
    return tiny


def test_the_installed_package_is_used(installed, root):
    assert prepare(root).source == "Debian package dataset-fashion-mnist (installed)"
    assert installed.is_in(raw(root))


def test_a_package_that_is_not_installed_is_told(tiny, root, offline):
    program(offline, "dpkg", "exit 1")
    with pytest.raises(UserError, match="not installed: sudo apt-get install dataset-fashion-mnist"):
        prepare(root)


# apt-get as far as it matters here: it fills the folder of lists, and puts the package where it stands.
APT_GET = """
echo "$LC_ALL $*" >> {log}
for last; do :; done
echo "dlstatus:1:50.0:Retrieving file 1 of 1"
case $last in
    update) [ -d lists/partial ] && echo one > lists/one ;;
    *) [ -f lists/one ] && echo {package} > "$last"_1_all.deb ;;
esac
"""


def test_the_package_archive_is_used_without_touching_the_machines_lists(tiny, root, offline, tmp_path):
    log = tmp_path / "log"
    program(offline, "apt-get", APT_GET.format(log=log, package="package"))
    program(offline, "dpkg-deb", f'/bin/mkdir "$3" && /bin/cp -r "{tiny.gz}" "$3"')
    assert prepare(root).source == "Debian package dataset-fashion-mnist (from the package archive)"
    assert tiny.is_in(raw(root))
    update, fetch = log.read_text().splitlines()
    assert update.endswith(" update")
    assert fetch.endswith(" download dataset-fashion-mnist")
    for line in (update, fetch):
        assert line.startswith("C -c ")
        assert f"Dir::State::Lists={raw(root)}/.apt." in line
        assert f"Dir::Cache={raw(root)}/.apt." in line


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'echo "W: Failed to fetch http://deb.example  Cannot resolve"; echo "E: Sorry"; exit 1',
            "Cannot resolve",
        ),
        ('echo "E: Unable to locate package"; exit 100', "Unable to locate package"),
        ("exit 0", "brought nothing"),
        ("while :; do echo dlstatus:1:5.0:x; /bin/sleep 0.05; done", "made no progress for 0 s"),
        ("exec /bin/sleep 60", "brought nothing"),
    ],
)
def test_a_package_archive_that_fails_is_told(tiny, root, offline, monkeypatch, script, said):
    monkeypatch.setattr(debian, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(debian, "APT_SECONDS", 0.6)
    program(offline, "apt-get", script)
    program(offline, "dpkg-deb", "exit 1")
    with pytest.raises(UserError, match=f"package archive: .*{said}.*: see whether apt-get update works"):
        prepare(root)
    assert not parts(root)


@pytest.mark.skipif(shutil.which("apt-config") is None, reason="for Debian and Ubuntu only")
def test_no_hook_of_the_machine_runs(tmp_path, monkeypatch):
    (tmp_path / "machine").write_text('APT::Update::Post-Invoke-Success { "touch /etc/changed"; };')
    (tmp_path / "ours").write_text(debian.APT_CONFIG)
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "machine"))
    for config, runs in (("machine", True), ("ours", False)):
        command = ["apt-config", "-c", str(tmp_path / config), "dump"]
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert ("touch /etc/changed" in dump) == runs


@pytest.mark.slow
def test_the_real_package_archive(tmp_path):
    """Needs Debian or Ubuntu and their archive."""
    dataset = DATASETS["fashion_mnist"]
    job = store.Job(dataset, tmp_path, tmp_path, {file.name: "is missing" for file in dataset.files})
    try:
        debian.archive(job)
    except store.SourceError as error:
        pytest.skip(str(error))
    assert job.origins == ["Debian package dataset-fashion-mnist (from the package archive)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in dataset.files)
