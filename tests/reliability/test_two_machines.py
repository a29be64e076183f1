"""Two machines, as network namespaces of this one: one is cut off within a run, and comes back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import environment, everything, once, record
from two import alive, children_of, wait_for

SCRIPT = Path(__file__).parents[2] / "docs" / "scripts" / "torchrun.sh"
ADDRESSES = ["10.77.7.1", "10.77.7.2"]
EPOCHS = 120
COMMAND = [
    *("--model.network", "vgg11", "--model.ratio", "32", "--model.batch_norm", "true", "--model.head", "gap"),
    *("--model.lr", "0.02", "--model.momentum", "0.9", "--data.augment", "[]", "--data.batch_size", "8"),
    *("--trainer.max_epochs", str(EPOCHS), "--checkpoint_every_n_steps", "10", "--trainer.accelerator", "cpu"),
    *("--data.dataset", "idx", "--data.val_size", "48", "--name", "far"),
]


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def machines():
    """Two namespaces and a cable between them; both are gone again afterwards, with all that runs in them."""
    names = [f"vgg{os.getpid()}{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "vgga", "netns", names[0], "type", "veth", "peer", "name", "vggb", "netns", names[1])
        for name, cable, address in zip(names, ("vgga", "vggb"), ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            for device in (cable, "lo"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        remove(names)
        pytest.skip(f"network namespaces are not allowed here: {getattr(error, 'stderr', error)}")
    yield names
    remove(names)


def remove(names):
    for name in names:
        pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Machine:
    """One of the two, which runs docs/scripts/torchrun.sh."""

    def __init__(self, machines, number, folder, data):
        self.name, self.cable = machines[number], f"vgg{'ab'[number]}"
        self.log = (folder / f"log{number}").open("ab")
        own = {
            "MAIN": ADDRESSES[0], "HERE": ADDRESSES[number], "PYTHON": sys.executable, "NODES": "1:2", "LAST_CALL": "5",
            "GLOO_SOCKET_IFNAME": self.cable, "TP_SOCKET_IFNAME": self.cable, "VGG_LIGHTNING_PATIENCE": "15",
        }  # fmt: skip
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "bash", SCRIPT, *once([*COMMAND, "--data.data_dir", data])],
            cwd=folder, env=environment() | own, stdout=self.log, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def kill(self):
        if self.process.poll() is not None:
            return
        for pid in [*children_of(self.process.pid), self.process.pid]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def cable_is(self, state):
        ip("-n", self.name, "link", "set", self.cable, state)


def start(machines, folder, data):
    folder.mkdir()
    return [Machine(machines, number, folder, data) for number in (0, 1)]


def finish(folder, *ones):
    for machine in ones:
        code = machine.process.wait(timeout=400)
        assert code == 0, "".join((folder / f"log{i}").read_text()[-3000:] for i in (0, 1))
    (run,) = [file.parent for file in folder.glob("lightning_logs/far/*/results.json")]
    return everything(run)["results"]


def epochs_said(folder):
    return (folder / "log0").read_text().count("\nepoch ")


def until(condition, seconds, folder):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "".join((folder / f"log{i}").read_text()[-2000:] for i in (0, 1))
        time.sleep(0.5)


@pytest.fixture(scope="module")
def whole(machines, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines") / "whole"
    found = finish(folder, *start(machines, folder, data))
    assert found["processes"] == 2
    assert found["test_acc"] > 0.9  # else any accuracy would do
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cable", "kill"])
def test_a_machine_is_cut_off_and_comes_back(machines, whole, data, tmp_path, how):
    folder = tmp_path / "broken"
    first, second = start(machines, folder, data)
    wait_for(folder, "lightning_logs/far/*/checkpoints/best.ckpt", first.process)
    if how == "cable":
        second.cable_is("down")
    else:
        second.kill()
    before = epochs_said(folder)
    until(lambda: epochs_said(folder) >= before + 2, 180, folder)  # the first goes on alone
    second.kill()
    second.cable_is("up")
    back = Machine(machines, 1, folder, data)
    print(how, "alone for", epochs_said(folder) - before, "epochs")
    broken = finish(folder, first, back)
    assert broken["processes"] == 2, "the second machine did not come back into the run"
    assert (broken["steps"], broken["epochs"]) == (whole["steps"], whole["epochs"])
    assert broken["test_acc"] == pytest.approx(whole["test_acc"], abs=0.05)
    record(f"one of two machines cut off ({how}) and back: steps and accuracy of the unbroken run", 1, 1)
