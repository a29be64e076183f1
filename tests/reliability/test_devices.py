"""Pipes, devices, folders, loops of links where a file is expected: nothing hangs, nothing is read without end."""

import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from small import data_options, fit, fit_line, launch, one_line

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_regular, read_regular
from vgg_lightning.base.options_file import read_options
from vgg_lightning.run.checkpoints.io import go_back_to
from vgg_lightning.run.checkpoints.locate import newest_beside, newest_valid
from vgg_lightning.run.checkpoints.seal import damage_of

ROOT = Path(__file__).parents[2]


def folder(place):
    place.mkdir()


def pipe(place):
    os.mkfifo(place)


def endless(place):
    place.symlink_to("/dev/zero")


def loop(place):
    place.symlink_to(place.name)


def dangling(place):
    place.symlink_to("nowhere")


def listener(place):
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(place.parent)  # the name of a socket is short
        server.bind(place.name)
        os.chdir(before)


KINDS = [folder, pipe, endless, loop, dangling, listener]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    assert fit(folder).code == 0
    return next(folder.rglob("version_0"))


@pytest.fixture
def got(run, tmp_path):
    return shutil.copytree(run, tmp_path / "lightning_logs" / "got" / "version_0")


def bounded(args, cwd, seconds=120):
    """Run the command line in a process of 6 GB at most; it may not hang."""
    command = f"ulimit -v 6000000; exec {sys.executable} -m vgg_lightning " + " ".join(args)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=seconds, env=env)


@pytest.mark.parametrize("make", KINDS)
def test_what_is_no_ordinary_file_is_not_opened(tmp_path, make):
    make(tmp_path / "last.ckpt")
    begin = time.monotonic()
    for look in (damage_of, open_regular, lambda file: read_regular(file, 10)):
        with pytest.raises(OSError):  # noqa: PT011
            look(tmp_path / "last.ckpt")
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("make", KINDS)
def test_a_run_goes_on_from_best_where_last_is_no_file(got, tmp_path, make):
    last = got / "checkpoints" / "last.ckpt"
    last.unlink()
    make(last)
    assert newest_valid(got).name in ("best.ckpt", "last-prev.ckpt")
    said = fit(tmp_path, "--ckpt_path", str(got), "--trainer.max_epochs", "2")
    if make is folder:
        assert said.code == 2
        assert "last.ckpt is a folder" in said.err
        return
    assert said.code == 0, said
    assert last.is_file()
    assert not last.is_symlink()


@pytest.mark.parametrize("make", KINDS)
def test_a_damaged_checkpoint_beside_a_pipe_is_refused_in_one_line(got, tmp_path, make):
    best = got / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-1])
    make(got / "checkpoints" / "other.ckpt")
    said = launch(["test", "--ckpt_path", str(best), *data_options()], tmp_path)
    assert said.code == 2
    assert "last.ckpt" in one_line(said)
    assert "last.ckpt" in newest_beside(best)


def test_a_copy_over_a_folder_is_refused(tmp_path):
    (tmp_path / "best.ckpt").write_bytes(b"x")
    (tmp_path / "last.ckpt").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        go_back_to(tmp_path / "best.ckpt", tmp_path / "last.ckpt")


def test_an_archive_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path):
    file = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", bytes(200_000_000))
    begin = time.monotonic()
    assert damage_of(file) == "its archive is compressed"
    assert time.monotonic() - begin < 0.2


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
BAD_YAML = {
    "bomb": BOMB,
    "merge bomb": MERGE_BOMB,
    "deep": "[" * 100_000,
    "deep tables": "{a: " * 50_000,
    "base sixty": "a: 1" + ":1" * 200_000,
    "digits": "a: " + "9" * 20_000,
    "itself": "a: &a [*a]",
    "large": "# " + "x" * 2_000_000,
    "binary": "\x00\x01",
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_a_small_file_of_options_takes_no_time(tmp_path, name):
    file = tmp_path / "options.yaml"
    file.write_text(BAD_YAML[name])
    begin = time.monotonic()
    said = launch(["fit", "--config", str(file)], tmp_path)
    assert time.monotonic() - begin < 10
    assert said.code == 2
    assert "--config" in one_line(said)


def test_an_alias_that_stands_for_little_is_read(tmp_path):
    (tmp_path / "options.yaml").write_text("x: &lr 0.1\nmodel: {lr: *lr}\nnested: &n {a: 1}\nother:\n  <<: *n\n")
    assert read_options(tmp_path / "options.yaml")["other"] == {"a": 1}


@pytest.mark.parametrize("make", KINDS)
def test_a_configuration_of_a_run_or_a_space_that_is_no_file_is_one_line(got, tmp_path, make):
    make(tmp_path / "space.yaml")
    said = launch(["sweep", str(tmp_path / "space.yaml"), "--trials", "1", *data_options()], tmp_path)
    assert said.code == 2
    one_line(said)
    (got / "config.yaml").unlink()
    make(got / "config.yaml")
    begin = time.monotonic()
    fit(tmp_path, "--ckpt_path", str(got), "--trainer.max_epochs", "2")
    assert time.monotonic() - begin < 60


def test_a_search_over_an_endless_device_is_refused(tmp_path):
    said = bounded(["sweep", "/dev/zero", "--trials", "1", *data_options()], tmp_path)
    assert said.returncode == 2, said
    assert "it is a device, no ordinary file" in said.stderr


@pytest.mark.parametrize(
    "space",
    [
        "trainer.logger: [canary_module.Evil]",
        "trainer.logger: [{class_path: canary_module.Evil}]",
        "trainer.callbacks: [[canary_module.Evil]]",
        "trainer.callbacks: [[{class_path: canary_module.Evil}]]",
        "trainer.profiler: [simple, canary_module.Evil]",
        "trainer.plugins: [canary_module.Evil]",
    ],
)
def test_a_space_that_names_a_class_imports_nothing(space, tmp_path, monkeypatch):
    (tmp_path / "canary_module.py").write_text("import pathlib\npathlib.Path('mark').touch()\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "space.yaml").write_text(space)
    said = launch(["sweep", "space.yaml", "--trials", "1", *data_options()], tmp_path)
    assert said.code == 2
    one_line(said)
    assert "canary_module" not in sys.modules
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--trainer.default_root_dir", "s3://bucket/x"], "to a folder on this machine"),
        (["--data.seed", str(2**70)], "takes 0 to 4294967295"),
        (["--data.seed", "-1"], "takes 0 to 4294967295"),
        (["--name", "a" * 101], "--name has 101 characters"),
    ],
)
def test_what_cannot_be_done_is_refused_and_not_done_otherwise(options, says, tmp_path):
    said = launch(fit_line(*options), tmp_path)
    assert said.code == 2
    assert says in one_line(said)
    assert not os.listdir(tmp_path)
