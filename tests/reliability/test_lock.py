"""Two processes in one run: the second one is refused, whatever it is, and a killed one leaves no lock behind."""

import contextlib
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from harness import NETWORK, differences, everything, once, only_run, output
from small import BRIEF, data_options, fit, launch, one_line
from small import NETWORK as SMALL

from vgg_lightning import load_classifier
from vgg_lightning.base import machine
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import HOST
from vgg_lightning.prepare import fit as train
from vgg_lightning.prepare import prepare
from vgg_lightning.run.kit import RunKit
from vgg_lightning.run.lock import FolderLock

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from vgg_lightning.run.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
{}
print("held", flush=True)
time.sleep(100)
"""
CHILDREN = {
    "no child": "",
    "a forked worker": "import os; os.fork() or time.sleep(100)",
    "a program": "import subprocess; subprocess.Popen(['sleep', '100'], close_fds=False)",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lock")
    assert fit(folder).code == 0
    return next(folder.rglob("version_0"))


@pytest.fixture
def got(run, tmp_path):
    return shutil.copytree(run, tmp_path / "lightning_logs" / "quick" / "version_0")


@pytest.fixture
def holder():
    """Start a process that holds a folder, and end it and what it has started."""
    started = []

    def hold(folder, child=""):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", HOLD.format(child), str(folder)]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_who_writes_is_refused_and_who_reads_is_not(got, holder, tmp_path):
    other = holder(got)
    for args in (
        ["fit", "--ckpt_path", str(got), "--trainer.max_epochs", "2", *data_options()],
        ["fit", "--resume", *SMALL, *BRIEF, "--trainer.max_epochs", "2", *data_options()],
        ["predict", "--ckpt_path", str(got), *data_options()],
    ):
        before = {file: file.read_bytes() for file in got.rglob("*") if file.is_file()}
        said = launch(args, tmp_path)
        assert said.code == 2, said
        where = re.escape(os.path.relpath(got, tmp_path))
        assert re.search(rf"run \S*{where} is in use by process {other.pid} on host {HOST}: wait", one_line(said))
        assert ("--output" in said.err) == (args[0] == "predict")
        assert {file: file.read_bytes() for file in got.rglob("*") if file.is_file()} == before
    for args in (["test"], ["validate"], ["predict", "--output", str(tmp_path / "elsewhere")]):
        said = launch([*args, "--ckpt_path", str(got), *data_options()], tmp_path)
        assert said.code == 0, said
    assert load_classifier(got)


@pytest.mark.parametrize("child", CHILDREN)
def test_a_kill_lets_the_folder_go_whatever_it_has_started(tmp_path, holder, child):
    process = holder(tmp_path, CHILDREN[child])
    with pytest.raises(UserError, match=f"by process {process.pid} "):
        FolderLock(tmp_path).acquire()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_run_that_is_requeued_twice_goes_on_once(server, options, unbroken, tmp_path):
    command = ["fit", *NETWORK, *options]
    assert server.run(tmp_path, *command, at={"hook": "training_step", "count": 12, "signal": signal.SIGKILL}) == -9
    server.start(tmp_path, *command, "--resume")
    here = launch(once([*command, "--resume"]), tmp_path)
    there = server.end()
    assert sorted([here.code, there]) == [0, 2], here
    refused = here.err if here.code else output(tmp_path)
    assert re.search(r"error: run \S+ (is in use by process \d+|has gone on in another process)", refused), refused
    assert not differences(unbroken, everything(only_run(tmp_path)))


def python_run(got, **more):
    options = {"limit_train_batches": 2, "limit_val_batches": 1, "limit_test_batches": 1, "accelerator": "cpu"}
    checkpoint = torch.load(got / "checkpoints" / "last.ckpt", weights_only=True)
    model = dict(checkpoint["hyper_parameters"])
    data = {**checkpoint["datamodule_hyper_parameters"], "data_dir": data_options()[3]}
    return prepare(model, data, ckpt_path=got, trainer={**options, "max_epochs": 2}, show="none", **more)


def test_of_two_that_one_program_prepares_the_newer_one_runs(got):
    first, second = python_run(got), python_run(got)
    with pytest.raises(UserError, match="was prepared once more since: prepare it anew"):
        train(first)
    assert train(second)["epochs"] == 2
    again = FolderLock(got)
    again.acquire()  # at its end it has let the folder go
    again.release()


def test_one_that_is_at_work_is_not_disturbed_from_the_same_program(got):
    with FolderLock(got).at_work(), pytest.raises(UserError, match="is in use by this process: wait"):
        python_run(got)
    assert python_run(got)


def test_a_run_that_was_not_begun_holds_nothing(got):
    run = python_run(got)
    del run
    with pytest.raises(UserError, match="contradicts"):
        prepare({"network": "lenet"}, {"data_dir": data_options()[3], "dataset": "idx"}, ckpt_path=got)
    FolderLock(got).acquire()


def test_what_goes_on_while_it_is_prepared_is_not_undone(got, monkeypatch):
    acquire = FolderLock.acquire

    def late(self):
        acquire(self)
        os.utime(got / "checkpoints" / "last.ckpt")  # as when another process has ended in between

    monkeypatch.setattr(FolderLock, "acquire", late)
    with pytest.raises(UserError, match="has gone on in another process since its checkpoint was read"):
        python_run(got)


def test_the_kit_holds_the_folder_of_a_project_of_its_own(tmp_path, holder):
    import lightning as L
    from lightning.pytorch.demos.boring_classes import BoringModel

    other = holder(tmp_path)
    with pytest.raises(UserError, match=f"in use by process {other.pid}"):
        RunKit(tmp_path)
    other.kill()
    other.wait()
    first, kit = RunKit(tmp_path, None, progress=False), RunKit(tmp_path, None, progress=False)
    options = {"max_steps": 1, "accelerator": "cpu", "enable_model_summary": False, "limit_val_batches": 0}
    with pytest.raises(UserError, match="prepared once more"):
        L.Trainer(**options, **first.plugs()).fit(BoringModel())
    held = []

    class Look(L.Callback):
        def on_train_start(self, *_):
            with pytest.raises(UserError, match="by this process"):
                RunKit(tmp_path)
            held.append(True)

    trainer = L.Trainer(**options, **kit.plugs(Look()))
    trainer.fit(BoringModel())
    assert held
    with FolderLock(tmp_path).at_work(), pytest.raises(UserError, match="by this process"):
        trainer.test(BoringModel(), verbose=False)
    trainer.test(BoringModel(), verbose=False)


@pytest.mark.parametrize("environment", [{"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, {"NODE_RANK": "1"}])
def test_the_other_processes_of_a_run_do_not_refuse_themselves(tmp_path, monkeypatch, environment):
    first = FolderLock(tmp_path)
    first.acquire()
    copy = pickle.loads(pickle.dumps(first))  # as a strategy that spawns does
    copy.begin()
    copy.end()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    FolderLock(tmp_path).acquire()
    monkeypatch.undo()
    with pytest.raises(UserError, match="in use"), first.at_work():
        FolderLock(tmp_path).acquire()


def test_where_there_are_no_locks_that_is_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(machine.fcntl, "flock", flock)
    lock = FolderLock(tmp_path)
    for _ in range(2):
        with lock.at_work():
            pass
    said = capsys.readouterr().err
    assert said == f"{tmp_path} cannot be locked: No locks available; see to it that no other process writes there\n"
    monkeypatch.setattr(machine, "POSIX", False)
    FolderLock(tmp_path).acquire()
    assert "this system has no locks of files" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["a link", "a dangling link", "a second name", "a pipe"])
def test_no_lock_is_written_through_a_link(tmp_path, kind):
    target, place = tmp_path / "key", tmp_path / "run" / ".lock"
    place.parent.mkdir()
    if kind != "a dangling link":
        target.write_text("secret")
    if kind == "a pipe":
        os.mkfifo(place)
    else:
        (os.link if kind == "a second name" else os.symlink)(target, place)
    begin = time.monotonic()
    lock = FolderLock(place.parent)
    lock.acquire()
    assert time.monotonic() - begin < 1
    assert place.read_text() == f"{os.getpid()} {HOST}\n"
    assert target.exists() == (kind != "a dangling link")
    assert kind == "a dangling link" or target.read_text() == "secret"
    with pytest.raises(UserError, match="this process"), lock.at_work():
        FolderLock(place.parent).acquire()


def test_what_a_lock_says_of_itself_is_not_believed(tmp_path, holder):
    holder(tmp_path)
    (tmp_path / ".lock").write_text("12 \x1b[2J\n")
    with pytest.raises(UserError, match="in use by another process: wait"):
        FolderLock(tmp_path).acquire()
