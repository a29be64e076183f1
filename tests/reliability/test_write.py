"""Checkpoints on a faulty disk: damage is always noticed, and a valid checkpoint survives."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from harness import EPOCHS, NETWORK, differences, essence, everything, only_run, output, record

from vgg_lightning import load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import HOST, part_of, write_whole
from vgg_lightning.loading.load import read_checkpoint
from vgg_lightning.run.checkpoints.io import CheckpointNotWrittenError, VerifiedCheckpointIO, go_back_to, previous_of
from vgg_lightning.run.checkpoints.seal import damage_of

SEED = 2
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, or runs as another user")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of a finished run to damage."""
    return shutil.copytree(finished, tmp_path / "lightning_logs" / "quick" / "version_0")


def flip(file, position, bit):
    data = bytearray(file.read_bytes())
    data[position] ^= 1 << bit
    file.write_bytes(data)


def refused(file):
    """Whether a checkpoint is refused in one line that gives no dangerous advice."""
    with pytest.raises(UserError) as error:
        read_checkpoint(file)
    line = str(error.value)
    return "\n" not in line and "weights_only" not in line


def test_every_flipped_bit_is_refused(long, finished, tmp_path):
    draw = random.Random(SEED)
    whole = (finished / "checkpoints" / "best.ckpt").read_bytes()
    file, count = tmp_path / "flipped.ckpt", 200
    # Half of them anywhere, half near the end, where the directory of the archive and the seal are.
    positions = [draw.randrange(len(whole)) for _ in range(count // 2)]
    positions += [len(whole) - 1 - draw.randrange(400) for _ in range(count // 2)]
    passed = 0
    for position in positions:
        file.write_bytes(whole)
        flip(file, position, draw.randrange(8))
        passed += refused(file)
    if long:
        record("flipped bit refused", passed, count, SEED)
    assert passed == count


def test_every_truncation_is_refused(long, finished, tmp_path):
    draw = random.Random(SEED)
    whole = (finished / "checkpoints" / "best.ckpt").read_bytes()
    file = tmp_path / "short.ckpt"
    lengths = [len(whole) - 1, len(whole) - 85, len(whole) - 87, 1, *draw.sample(range(len(whole)), 16)]
    passed = 0
    for length in lengths:
        file.write_bytes(whole[:length])
        passed += refused(file)
    if long:
        record("truncated file refused", passed, len(lengths), SEED)
    assert passed == len(lengths)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", bytes(5000), b"PK\3\4"])
def test_what_is_no_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "wrong.ckpt").write_bytes(content)
    assert refused(tmp_path / "wrong.ckpt")


def test_a_sealed_file_is_an_ordinary_checkpoint(finished):
    file = finished / "checkpoints" / "best.ckpt"
    assert damage_of(file) is None
    assert torch.load(file, weights_only=True).keys() == read_checkpoint(file).keys()


def test_a_file_without_a_seal_is_read_and_its_damage_seen(finished, tmp_path):
    checkpoint = read_checkpoint(finished / "checkpoints" / "best.ckpt")
    file = tmp_path / "plain.ckpt"
    torch.save(checkpoint, file)
    assert not differences(read_checkpoint(file), checkpoint)
    flip(file, file.stat().st_size // 2, 0)
    assert refused(file)


def test_a_damaged_last_checkpoint_is_passed_over(server, copy, options, tmp_path, unbroken):
    flip(copy / "checkpoints" / "last.ckpt", 5000, 3)
    (copy / "results.json").unlink()
    assert server.run(tmp_path, "fit", *NETWORK, *options, "--resume") == 0, output(tmp_path)
    lines = [line for line in output(tmp_path).splitlines() if "is damaged" in line]
    assert len(lines) == 1
    assert "last.ckpt is damaged (its SHA-256 is wrong)" in lines[0]
    assert not differences(unbroken, everything(copy))


def test_a_damaged_best_checkpoint_does_not_end_a_run(server, copy, options, tmp_path):
    flip(copy / "checkpoints" / "best.ckpt", 5000, 3)
    command = ["fit", "--resume", *NETWORK, *options, "--trainer.max_epochs", EPOCHS + 1]
    assert server.run(tmp_path, *command) == 0, output(tmp_path)
    assert "best.ckpt is lost, damaged or of another epoch" in output(tmp_path)
    assert damage_of(copy / "checkpoints" / "best.ckpt") is None


def test_a_damaged_file_by_name_is_refused_with_the_newest_valid_one(server, copy, tmp_path):
    file = copy / "checkpoints" / "last.ckpt"
    flip(file, 5000, 3)
    for subcommand in ("fit", "test"):
        assert server.run(tmp_path, subcommand, "--ckpt_path", file) == 2
        line = output(tmp_path).strip()
        assert "\n" not in line
        assert "last-prev.ckpt" in line or "best.ckpt" in line


def test_no_weights_of_a_damaged_run_folder_are_used(server, copy, tmp_path):
    flip(copy / "checkpoints" / "best.ckpt", 5000, 3)
    assert server.run(tmp_path, "test", "--ckpt_path", copy) == 2
    with pytest.raises(UserError):
        load_classifier(copy)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB, other than that of the temporary files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode:
        pytest.skip("cannot mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def weights(kilobytes, value=1.0):
    return {"state_dict": {"w": torch.full((kilobytes * 256,), value)}, "hyper_parameters": {}}


@needs_root
@pytest.mark.parametrize("spare", [0, 1, 4, 20, 60, 100, 140, 180, 195, 199])
def test_a_full_disk_leaves_the_old_checkpoint(small_disk, spare):
    io, file = VerifiedCheckpointIO(), small_disk / "last.ckpt"
    io.save_checkpoint(weights(200, 1.0), file)
    io.save_checkpoint(weights(200, 2.0), file)
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(bytes(free - spare * 1024))
    with pytest.raises(CheckpointNotWrittenError, match="No space left"):
        io.save_checkpoint(weights(200, 3.0), file)
    assert not differences(io.load_checkpoint(file), weights(200, 2.0))
    assert not differences(io.load_checkpoint(previous_of(file)), weights(200, 1.0))
    assert sorted(os.listdir(small_disk)) == ["filler", "last-prev.ckpt", "last.ckpt"]


@needs_root
def test_a_run_on_a_disk_that_is_too_small_is_refused(server, small_disk, options):
    assert server.run(small_disk, "fit", *NETWORK, *options, "--model.ratio", "8") == 2
    assert "need ~" in output(small_disk)
    assert "MB free" in output(small_disk)
    assert not list(small_disk.glob("lightning_logs/*/version_*"))


@needs_root
def test_a_run_on_a_disk_that_fills_up_goes_on_and_says_so(server, tmp_path, options, unbroken):
    """The disk is full from the second epoch on: training continues, best.ckpt stays what it was, the code is 1."""
    disk, command = tmp_path / "disk", ["fit", *NETWORK, *options, "--trainer.default_root_dir", tmp_path / "disk"]
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", disk], check=False).returncode:
        pytest.skip("cannot mount")
    try:
        at = {"hook": "training_step", "count": 10, "fill": str(disk / "filler")}
        assert server.run(tmp_path, *command, at=at) == 1, output(tmp_path)
        run = only_run(disk)
        assert "last.ckpt is not written: No space left on device; training continues" in output(tmp_path)
        assert "Traceback" not in output(tmp_path)
        assert "test accuracy" in output(tmp_path)
        assert "the newest checkpoint could not be written: make room and resume the run" in output(tmp_path)
        assert "results.json is not written: No space left on device" in output(tmp_path)
        assert essence(run / "checkpoints" / "last.ckpt")["epoch"] == 0
        (disk / "filler").unlink()
        assert server.run(tmp_path, *command, "--resume") == 0, output(tmp_path)
        assert not differences(unbroken, everything(run))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@needs_root
def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(server, copy, options, tmp_path):
    folder = copy.parents[2] / "lightning_logs"
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        for more, line in (([], "cannot write the run folder"), (["--resume"], "cannot write to the run folder")):
            command = ["fit", *NETWORK, *options, "--trainer.max_epochs", EPOCHS + 1, *more]
            assert server.run(tmp_path, *command) == 2, output(tmp_path)
            assert line in output(tmp_path)
            assert "Read-only file system" in output(tmp_path)
            assert "epoch" not in output(tmp_path)
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_kill_while_writing_leaves_a_valid_checkpoint_and_its_rest_is_tidied(copy, server, options, tmp_path):
    for file in ("last.ckpt", "best-prev.ckpt"):
        (copy / "checkpoints" / f".{file}.part").write_bytes(b"half")  # as versions of before named them
        os.link(copy / "checkpoints" / "last.ckpt", part_of(copy / "checkpoints" / file))
    part_of(copy / "metrics.csv").write_bytes(b"half")
    (copy / ".results.json.part").symlink_to("/dev/zero")
    (copy / "results.json").unlink()
    assert server.run(tmp_path, "fit", *NETWORK, *options, "--resume") == 0, output(tmp_path)
    assert not list(copy.rglob("*.part"))


def test_no_two_processes_write_a_checkpoint_under_one_name(tmp_path, monkeypatch):
    seen, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda part, file: (seen.append(Path(part).name), replace(part, file)))
    for value in (1.0, 2.0):
        VerifiedCheckpointIO().save_checkpoint(weights(1, value), tmp_path / "last.ckpt")
    go_back_to(tmp_path / "last-prev.ckpt", tmp_path / "last.ckpt")
    assert len(seen) == len(set(seen)) == 4
    assert all(str(os.getpid()) in name for name in seen)
    assert sorted(os.listdir(tmp_path)) == ["last-prev.ckpt", "last.ckpt"]


def test_the_next_write_removes_what_a_dead_process_left_and_nothing_else(tmp_path):
    file = tmp_path / "predictions.csv"
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, theirs = part_of(file), part_of(file).name.replace(f".{HOST}.", ".elsewhere.")
    gone = tmp_path / ours.name.replace(str(os.getpid()), str(dead.pid))
    old = tmp_path / theirs.replace(str(os.getpid()), "7")
    kept = [
        ours,
        tmp_path / theirs,
        tmp_path / ".predictions.csv.part",
        tmp_path / f".predictions.csv.mine.{dead.pid}.part",
    ]
    for part in (gone, old, *kept):
        part.write_text("half")
    os.utime(old, (0, 0))
    write_whole(file, "all")
    assert sorted(tmp_path.iterdir()) == sorted([file, *kept])


def test_a_file_system_without_hard_links_keeps_two_generations_as_well(tmp_path, monkeypatch):
    def link(*paths):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    io, file = VerifiedCheckpointIO(), tmp_path / "last.ckpt"
    for value in (1.0, 2.0):
        io.save_checkpoint(weights(1, value), file)
    assert not differences(io.load_checkpoint(file), weights(1, 2.0))
    assert not differences(io.load_checkpoint(previous_of(file)), weights(1, 1.0))
