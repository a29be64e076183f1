"""Files from a mirror, over http, https or from a file: address."""

from __future__ import annotations

import http.client
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Protocol, Self, cast

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.progress import Bar, bytes_bar, say
from vgg_lightning.data.sources.catalogue import Dataset
from vgg_lightning.data.sources.idx import Fault, IdxFile
from vgg_lightning.data.sources.local import CHUNK, take_from_archive, unpacked
from vgg_lightning.data.sources.store import LARGEST, Chunks, Job, SourceError

MIRROR_VARIABLE = "VGG_LIGHTNING_MIRROR"
CONNECT_SECONDS = 10.0  # for name look-up, connection and the first answer together
READ_SECONDS = 30.0  # without a byte
FILE_SECONDS = 3600.0  # for one file, however slow
ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # between attempts


class _Response(Protocol):
    """What urllib gives for all kinds of address."""

    headers: Message

    def read(self, size: int = ..., /) -> bytes: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Unreachable(Exception):  # noqa: N818 - a finding, as Fault is
    """Nothing answers at an address, so that other files there need not be asked for."""


class Broken(Fault):
    """A transfer stopped half-way or the server was busy: another attempt may succeed."""


def from_mirror(job: Job) -> None:
    """Download the wanted files from the first mirror that has them."""
    reasons = []
    for mirror in mirrors(job.dataset):
        try:
            reasons += (_take_archive if job.dataset.archive else _take_all)(job, mirror)
        except Unreachable as error:
            reasons.append(f"{mirror} cannot be reached ({error})")
        if not job.wanted:
            return
    raise SourceError(f"{reasons[0]}: go online, or name another mirror with {MIRROR_VARIABLE}")


def mirrors(dataset: Dataset) -> list[str]:
    """Return the addresses of folders that hold the .gz files, each with a slash at its end."""
    own = os.environ.get(MIRROR_VARIABLE)
    if not own:
        import torchvision.datasets  # late: it costs seconds and is rarely needed

        known = getattr(torchvision.datasets, str(dataset.torchvision))
        return [str(known.url).rpartition("/")[0] + "/"] if dataset.archive else list(known.mirrors)
    if not own.startswith(("http://", "https://", "file:/")):
        raise UserError(f"{MIRROR_VARIABLE} is {own!r}: begin it with http://, https:// or file:/")
    return [own.rstrip("/") + "/"]


def _take_all(job: Job, mirror: str) -> list[str]:
    """Download each wanted file from one mirror, and return what was wrong with those that failed."""
    faults = []
    for file in job.wanted:
        url = f"{mirror}{file.name}.gz"
        try:
            _take(job, file, url, f"download from {mirror}")
        except Fault as fault:
            faults.append(f"{url} {fault}")
            if isinstance(fault, Broken):  # it has had its attempts: the others would only cost as many
                break
    return faults


def _take_archive(job: Job, mirror: str) -> list[str]:
    """Download the zip file, take the wanted files out of it, and return what was wrong with it."""
    archive = job.dataset.archive
    assert archive is not None
    url = f"{mirror}{archive.name}"
    part = job.folder / f".{archive.name}.{os.getpid()}.part"
    try:
        _again_if_broken(url, lambda: _save(url, archive.name, part))
        take_from_archive(job, part, f"download from {mirror}")
    except Fault as fault:
        return [f"{url} {fault}"]
    finally:
        part.unlink(missing_ok=True)
    return [f"{url} does not hold {file.name}" for file in job.wanted]


def _save(url: str, name: str, part: Path) -> None:
    """Write what lies at `url` to `part` as it is."""
    with _open(url) as response, bytes_bar(name, url, _length(response)) as progress, part.open("wb") as stream:
        metered, expected = _Metered(response, progress, LARGEST), _length(response)
        try:
            while chunk := metered.read(CHUNK):
                stream.write(chunk)
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            raise Broken(f"broke off ({_reason(error)})") from error
        if expected not in (None, stream.tell()):
            raise Broken("ended early")


def _take(job: Job, file: IdxFile, url: str, origin: str) -> None:
    """Download one file, again after a broken transfer."""
    _again_if_broken(url, lambda: job.take(file, _download(url, file), origin))


def _again_if_broken(url: str, fetch: Callable[[], None]) -> None:
    """Fetch what lies at `url`, again after a broken transfer."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return fetch()
        except Broken as fault:
            if attempt == ATTEMPTS:
                raise
            say(f"{url} {fault}: trying again")
            time.sleep(PAUSE_SECONDS * attempt)


def _download(url: str, file: IdxFile) -> Chunks:
    """Yield the unpacked content of `url` as it arrives."""
    with _open(url) as response, bytes_bar(file.name, url, _length(response)) as progress:
        try:
            yield from unpacked(cast(IO[bytes], _Metered(response, progress, file.size)), file.md5)
        except EOFError as error:
            raise Broken("ended early") from error
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"broke off ({_reason(error)})") from error


class _Metered:
    """A response as a readable stream that moves the bar, and ends what would never end.

    A gzip file is at most a little larger than its content, so more than that is not the file.
    """

    def __init__(self, response: _Response, progress: Bar, size: int | None) -> None:
        self.response, self.progress = response, progress
        self.left = (size or LARGEST) + (1 << 16)
        self.deadline = time.monotonic() + FILE_SECONDS

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, none at the end."""
        data = self.response.read(size)
        self.progress.update(len(data))
        self.left -= len(data)
        if self.left < 0:
            raise Fault("sends more than the whole file")
        if time.monotonic() > self.deadline:
            raise Fault(f"is too slow (not done after {FILE_SECONDS:.0f} s)")
        return data


def _open(url: str) -> _Response:
    """Open an address, or give up soon.

    The time limit of urllib counts anew for each of a host's addresses, and not at all for the name look-up;
    so the call runs in a thread, which is left behind when it takes too long.
    """
    answers: queue.SimpleQueue[_Response | Exception] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(url, answers), daemon=True).start()
    try:
        answer = answers.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise Unreachable(f"no answer within {CONNECT_SECONDS:g} s") from None
    if not isinstance(answer, Exception):
        return answer
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        raise (Broken if answer.code >= 500 else Fault)(f"answers {answer.code} {answer.reason}") from answer
    if isinstance(answer, (http.client.RemoteDisconnected, ConnectionResetError)):
        raise Broken("broke off before an answer") from answer
    raise Unreachable(_reason(answer)) from answer


def _ask(url: str, answers: queue.SimpleQueue[_Response | Exception]) -> None:
    """Put the response of `url`, or what went wrong, into `answers`."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vgg-lightning"})  # noqa: S310 - see mirrors
        answers.put(urllib.request.urlopen(request, timeout=READ_SECONDS))  # noqa: S310
    except Exception as error:  # handed over, not swallowed
        answers.put(error)


def _length(response: _Response) -> int | None:
    """Return the size that the server tells, if it does."""
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _reason(error: Exception) -> str:
    """Return what an error says, without the layers that urllib wraps around it."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
