"""Sound data sets, small and real, folders to damage, and a web server that behaves as badly as asked."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import shutil
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vgg_lightning.data.sources.catalogue import DATASETS, Dataset, mnist_like_files


def idx_bytes(array):
    """An array as the content of an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.astype(np.uint8).tobytes()


@dataclasses.dataclass
class Good:
    """A data set whose every file is sound: raw in one folder, as .gz in another."""

    dataset: Dataset
    raw: Path
    gz: Path

    def bytes_of(self, file):
        return (self.raw / file.name).read_bytes()

    def is_in(self, folder):
        """Whether `folder` has all the raw files and nothing but them and the lock."""
        names = {file.name for file in self.dataset.files}
        if {path.name for path in folder.iterdir()} - {".lock"} != names:
            return False
        return all((folder / name).read_bytes() == (self.raw / name).read_bytes() for name in names)


def compress(raw: Path, gz: Path):
    gz.mkdir()
    for path in raw.glob("*-ubyte"):
        with gzip.open(gz / f"{path.name}.gz", "wb", compresslevel=1) as packed, path.open("rb") as unpacked:
            shutil.copyfileobj(unpacked, packed)


@pytest.fixture(scope="session")
def tiny_good(tmp_path_factory):
    """50 and 20 random images, with checksums as Fashion-MNIST has them."""
    folder = tmp_path_factory.mktemp("tiny")
    raw = folder / "raw"
    raw.mkdir()
    random = np.random.default_rng(0)
    counts, checksums = (50, 50, 20, 20), []
    for file, count in zip(mnist_like_files(), counts, strict=True):
        content = idx_bytes(random.integers(0, 10, (count, *file.item_shape)))
        (raw / file.name).write_bytes(content)
        checksums.append(hashlib.sha256(content).hexdigest())
    compress(raw, folder / "gz")
    files = mnist_like_files(counts, tuple(checksums))
    return Good(dataclasses.replace(DATASETS["fashion_mnist"], files=files), raw, folder / "gz")


@pytest.fixture(scope="session")
def real_good(tmp_path_factory, fashion_mnist_dir):
    """The real Fashion-MNIST."""
    dataset = DATASETS["fashion_mnist"]
    gz = tmp_path_factory.mktemp("real") / "gz"
    compress(fashion_mnist_dir / dataset.folder, gz)
    yield Good(dataset, fashion_mnist_dir / dataset.folder, gz)
    shutil.rmtree(gz)


@pytest.fixture
def tiny(tiny_good, monkeypatch):
    """The tiny data set in the place of Fashion-MNIST."""
    monkeypatch.setitem(DATASETS, "fashion_mnist", tiny_good.dataset)
    return tiny_good


@pytest.fixture(params=["tiny", "real"])
def good(request):
    """The tiny data set in the place of Fashion-MNIST, and the real one."""
    return request.getfixturevalue("tiny" if request.param == "tiny" else "real_good")


@pytest.fixture
def best(request):
    """The real data set where it can be had, else the tiny one."""
    try:
        return request.getfixturevalue("real_good")
    except pytest.skip.Exception:
        return request.getfixturevalue("tiny")


@pytest.fixture
def root(tmp_path):
    """An empty data folder, taken away afterwards: pytest keeps its own, and real files are large."""
    folder = tmp_path / "data folder"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A machine with no package tools that reaches no network."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("VGG_LIGHTNING_MIRROR", "http://127.0.0.1:9/")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    return tmp_path / "bin"


class Mirror(ThreadingHTTPServer):
    """Serves a folder, slowly or badly.

    Attributes:
        pause: Seconds before each piece of a 64th of a file.
        breaking: Names of files whose next transfer breaks off half-way.
        answers: What is sent in place of a file: name -> list of (status, body), each used once.
        endless: Names of files that never end.
        silent: Whether nothing is ever answered.
    """

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.pause, self.silent = 0.0, False
        self.breaking, self.endless, self.answers = set(), set(), {}
        self.asked, self.completed = Counter(), Counter()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address):
        """Say nothing: clients are killed on purpose."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name, mirror = self.path[1:], self.server
        mirror.asked[name] += 1
        if mirror.silent:
            time.sleep(3)
            return
        if mirror.answers.get(name):
            self.send_all(*mirror.answers[name].pop(0))
            return
        self.send_file(name, (mirror.folder / name).read_bytes())

    def send_all(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name, body):
        self.send_response(200)
        if name not in self.server.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        step = len(body) // 64 + 1
        for start in range(0, len(body), step):
            time.sleep(self.server.pause)
            if name in self.server.breaking and start > len(body) // 2:
                self.server.breaking.remove(name)
                return
            self.wfile.write(body[start : start + step])
        while name in self.server.endless:
            self.wfile.write(body)
        self.server.completed[name] += 1

    def log_message(self, *args):
        """Keep the tests' output clean."""


@pytest.fixture
def mirror_of(offline, monkeypatch):
    """Starts a `Mirror` of a folder, which is from then on the only source."""
    servers = []

    def start(folder):
        server = Mirror(folder)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        monkeypatch.setenv("VGG_LIGHTNING_MIRROR", server.url)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
