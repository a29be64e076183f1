"""Another system than Linux: what it lacks is used in one module, and a run does without it.

The second half takes from Python what Windows or macOS has not, and trains, is interrupted, resumes and predicts so.
"""

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from PIL import Image
from small import data_options, fit, fit_line

import vgg_lightning
from vgg_lightning.base import machine

ROOT = Path(__file__).parents[1]
PACKAGE = Path(vgg_lightning.__file__).parent
MODULES = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
KNOWS = "base/machine.py"
# What Python has on Linux and not on Windows, of the modules that are used here.
LACKS = {
    "os": {
        *("O_NONBLOCK", "O_NOFOLLOW", "O_NOCTTY", "O_CLOEXEC", "O_DIRECTORY", "O_SYNC", "fork", "forkpty", "setsid"),
        *("setpgid", "getpgid", "killpg", "kill", "uname", "sysconf", "getloadavg", "sched_getaffinity", "getuid"),
        *("geteuid", "getgid", "chown", "fchmod", "fchown", "mkfifo", "mknod", "nice", "pread", "pwrite", "statvfs"),
        *("register_at_fork", "sched_setaffinity", "posix_fadvise", "wait", "waitid", "WNOHANG", "symlink", "readlink"),
        *("sync", "fdatasync", "copy_file_range", "sendfile", "memfd_create", "pidfd_open"),
    },
    "signal": {
        *("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGSTOP", "SIGCONT", "SIGQUIT", "SIGPIPE"),
        *("alarm", "setitimer", "pause", "pthread_kill", "pthread_sigmask", "sigwait", "siginterrupt"),
    },
    "socket": {"AF_UNIX", "SO_REUSEPORT", "socketpair", "fromfd"},
    "time": {"tzset", "clock_gettime", "CLOCK_MONOTONIC"},
}
MISSING_MODULES = {"fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog", "posix", "ctypes"}


def foreign(tree):
    """Yield what of `LACKS` and `MISSING_MODULES` a module names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LACKS.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MISSING_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in MISSING_MODULES:
                yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names if a.name in LACKS.get(node.module, ()))


@pytest.mark.parametrize("name", [name for name in MODULES if name != KNOWS])
def test_one_module_alone_names_what_another_system_lacks(name):
    found = list(foreign(ast.parse(MODULES[name].read_text(encoding="utf-8"))))
    assert found == [], f"{name}: put it into {KNOWS}, with what is done without it"


def test_what_is_looked_for_is_found():
    text = "import os, fcntl\nfrom signal import SIGUSR1\nos.O_NOFOLLOW\nos.open"
    assert set(foreign(ast.parse(text))) == {"fcntl", "signal.SIGUSR1", "os.O_NOFOLLOW"}


def test_text_files_are_read_and_written_in_utf_8():
    """What a system takes for text without being told differs."""
    found = []
    for name, file in MODULES.items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text")
            if named and "encoding" not in {keyword.arg for keyword in node.keywords}:
                found.append(f"{name}:{node.lineno}")
    assert found == []


# A module that Python runs before anything else: it hides from this package, and from no library, what is lacking.
OTHER = f"""
import builtins, ctypes, errno, fcntl, importlib.machinery, io, multiprocessing, os, signal, socket, sys, time, types

LACKS = {LACKS!r}
MISSING = {MISSING_MODULES - {"ctypes"}!r}


class Other(types.ModuleType):
    def __init__(self, real, **instead):
        super().__init__(real.__name__)
        self.__dict__.update(instead, __real=real)

    def __getattr__(self, name):
        if name in LACKS.get(self.__name__, ()):
            raise AttributeError(f"this system has no {{self.__name__}}.{{name}}")
        return getattr(self.__dict__["__real"], name)


def open_(path, *args, **kwargs):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    return os.open(path, *args, **kwargs)


def fsync(descriptor):
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & 3 == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    os.fsync(descriptor)


def library(name, *args, **kwargs):
    if name is None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
    return ctypes.CDLL(name, *args, **kwargs)


def context(method=None):
    if method not in (None, "spawn"):
        raise ValueError(f"cannot find context for {{method!r}}")
    return multiprocessing.get_context("spawn")


others = {{
    "os": Other(os, open=open_, fsync=fsync),
    "signal": Other(signal),
    "socket": Other(socket),
    "time": Other(time),
    "sys": Other(sys, platform="win32"),
    "ctypes": Other(ctypes, CDLL=library),
    "multiprocessing": Other(multiprocessing, get_all_start_methods=lambda: ["spawn"], get_context=context),
}}


def import_(name, globals=None, locals=None, fromlist=(), level=0):
    if name in MISSING:
        raise ImportError(f"this system has no module {{name}}")
    return others[name] if name in others else builtins.__import__(name, globals, locals, fromlist, level)


class Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module):
        module.__builtins__ = {{**vars(builtins), "__import__": import_}}
        super().exec_module(module)


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name.startswith("vgg_lightning") else None
        if spec and spec.origin:
            spec.loader = Loader(name, spec.origin)
        return spec


def without_proc(function):
    def opened(file, *args, **kwargs):
        if isinstance(file, (str, os.PathLike)) and os.fspath(file).startswith(("/proc", "/sys")):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", file)
        return function(file, *args, **kwargs)
    return opened


sys.meta_path.insert(0, Finder)
builtins.open = io.open = without_proc(io.open)
"""


class System:
    """Another system: programs of this package run as on it."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(OTHER, encoding="utf-8")
        paths = [str(folder / "site"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}

    def start(self, *args):
        command = [sys.executable, *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def run(self, *args):
        process = self.start(*args)
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in err, err
        return process.returncode, out, err

    def launch(self, *args):
        return self.run("-m", "vgg_lightning", *args)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return System(tmp_path_factory.mktemp("other"))


def test_what_is_taken_away_is_gone(other):
    code = "from vgg_lightning.base import machine as m; print(m.POSIX, m.O_NOFOLLOW, m.STOP_SIGNALS)"
    _, out, _ = other.run("-c", f"{code}; print(m.free_memory() == m.UNTOLD, m.load(), m.START_METHOD, m.sys.platform)")
    stop = f"({signal.SIGTERM!r}, {signal.SIGINT!r})"
    assert out == f"False 0 {stop}\nTrue None spawn win32\n"


def test_every_module_can_be_imported(other):
    names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in MODULES]
    lines = [f"import vgg_lightning.{name}" for name in names if name not in ("__init__", "__main__")]
    code, _, err = other.run("-c", "\n".join(lines))
    assert code == 0, err


def test_it_trains_is_interrupted_resumes_and_predicts(other):
    options = fit_line("--name", "a", "--trainer.max_epochs", "3000", "--trainer.limit_test_batches", "1")
    process = other.start("-m", "vgg_lightning", *options)
    rows = other.folder / "lightning_logs/a/version_0/metrics.csv"
    until = time.monotonic() + 60
    while not (rows.is_file() and rows.stat().st_size > 400):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    last = other.folder / "lightning_logs/a/version_0/checkpoints/last.ckpt"
    assert last.is_file()

    done = torch.load(last, weights_only=True)["epoch"]
    more = ["--trainer.max_epochs", str(done + 2)]
    code, out, err = other.launch(*fit_line("--name", "a", *more), "--resume")
    assert code == 0, err
    results = json.loads((last.parents[1] / "results.json").read_text())
    assert results["epochs"] == done + 2
    assert results["peak_memory_mb"] is None  # the system does not tell
    assert "peak memory" not in out

    Image.linear_gradient("L").save(other.folder / "a.png")
    code, _, err = other.launch(
        *("predict", "--ckpt_path", "lightning_logs/a/version_0", "--data.predict_path", "a.png", "--output", ".")
    )
    assert code == 0, err
    assert (other.folder / "predictions.csv").is_file()
    assert not list(other.folder.rglob("*.part"))


def test_its_bits_are_those_of_this_system(other, tmp_path, monkeypatch):
    """Nothing that is done without changes a number."""
    torch.set_num_threads(1)
    assert fit(tmp_path, "--name", "bits").code == 0
    code, _, err = other.launch(*fit_line("--name", "bits"))
    assert code == 0, err
    mine, theirs = ((at / "lightning_logs/bits/version_0/metrics.csv").read_text() for at in (tmp_path, other.folder))
    assert "train_loss" in mine
    assert mine == theirs


def test_doctor_says_what_the_system_does_not_tell(other):
    _, out, err = other.launch("doctor", "--json")
    found = {finding["what"]: finding for finding in json.loads(out)["findings"]}
    assert found["memory"]["state"] == "note", err
    assert "does not tell" in found["memory"]["found"]


def test_a_trial_of_a_sweep_runs(other):
    pytest.importorskip("optuna")
    space = other.folder / "space.yaml"
    space.write_text("model.lr: {low: 0.01, high: 0.1, log: true}\n", encoding="utf-8")
    small = [*data_options(), *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1")]
    code, out, err = other.launch("sweep", "space.yaml", "--trials", "1", *small, "--model.ratio", "64")
    assert code == 0, out + err


def test_the_signal_that_a_process_sends_itself_is_handled(monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: heard.append(signum))
    try:
        for platform in ("linux", "win32"):
            monkeypatch.setattr(machine.sys, "platform", platform)
            machine.send_self(signal.SIGTERM)
            with contextlib.suppress(InterruptedError):
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM] * 2


def test_the_gpu_of_a_mac_gets_no_numbers_of_64_bits():
    assert machine.widest_float(torch.device("mps")) == torch.float32
    assert machine.widest_float(torch.device("cpu")) == torch.float64
