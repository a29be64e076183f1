"""Files from the Debian package of a data set: installed, or straight from the archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from vgg_lightning.base.progress import percent_bar
from vgg_lightning.data.sources.local import take_from
from vgg_lightning.data.sources.store import Job, SourceError

APT_SECONDS = 600.0  # for one call of apt-get
STALL_SECONDS = 30.0  # without progress

# No hook of the machine's own configuration may run, and of the lists only those of packages are needed.
APT_CONFIG = """
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Status-Fd "1";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
"""


def installed(job: Job) -> None:
    """Take the wanted files from the package, where it is installed."""
    package = _package(job, "dpkg")
    listing = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, env=_environment(), check=False)
    if listing.returncode:
        raise SourceError(f"{package} is not installed: sudo apt-get install {package}")
    _take_listed(job, map(Path, listing.stdout.splitlines()), f"Debian package {package} (installed)")


def archive(job: Job) -> None:
    """Take the wanted files from the package, fetched with apt-get into a temporary folder with own lists.

    Needs no root and installs nothing.
    """
    package = _package(job, "apt-get", "dpkg-deb")
    with tempfile.TemporaryDirectory(
        dir=job.folder, prefix=".apt.", suffix=".part", ignore_cleanup_errors=True
    ) as name:
        unpacked = _unpack(_fetch(package, Path(name)))
        _take_listed(job, unpacked.rglob("*"), f"Debian package {package} (from the package archive)")


def _package(job: Job, *tools: str) -> str:
    """Return the name of the data set's package, if it has one and this machine has the tools for it."""
    if job.dataset.package is None:
        raise SourceError(f"{job.dataset.title} has no package")
    for tool in tools:
        if shutil.which(tool) is None:
            raise SourceError(f"{tool} is not on this machine: for Debian and Ubuntu only")
    return job.dataset.package


def _take_listed(job: Job, paths: Iterable[Path], origin: str) -> None:
    """Take the wanted files that are among `paths`."""
    folders = sorted({path.parent for path in paths if path.name.removesuffix(".gz") in job.faults})
    take_from(job, folders, origin)
    if job.wanted:
        raise SourceError(f"{origin} holds no sound {job.wanted[0].name}: use another source")


def _fetch(package: str, work: Path) -> Path:
    """Download the package into `work` and return its path."""
    complaints = _apt_get(work, "reading the lists of the package archive", "update")
    complaints += _apt_get(work, f"downloading the Debian package {package}", "download", package)
    for path in work.glob(f"{package}_*.deb"):
        return path
    reason = complaints[0] if complaints else "apt-get brought nothing and said nothing"
    raise SourceError(f"{reason}: see whether apt-get update works")


def _unpack(package: Path) -> Path:
    """Unpack a package beside itself and return the folder."""
    folder = package.parent / "unpacked"
    command = ["dpkg-deb", "--extract", str(package), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    if result.returncode:
        raise SourceError(f"dpkg-deb cannot unpack {package.name}: try again")
    return folder


def _apt_get(work: Path, text: str, *arguments: str) -> list[str]:
    """Run apt-get with all its state in `work`, and return its complaints, the telling ones first."""
    (work / "apt.conf").write_text(APT_CONFIG, encoding="utf-8")
    for folder in ("lists/partial", "archives/partial"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    options = ["-c", str(work / "apt.conf"), "-qq"]
    for option in (f"State::Lists={work}/lists", f"Cache={work}", "Cache::pkgcache=", "Cache::srcpkgcache="):
        options += ["-o", f"Dir::{option}"]
    process = subprocess.Popen(
        ["apt-get", *options, *arguments],
        cwd=work,
        env=_environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return _watch(process, text)


def _watch(process: subprocess.Popen[str], text: str) -> list[str]:
    """Follow apt-get's progress to its end, or end it when it stands still; return its complaints."""
    assert process.stdout is not None
    complaints: list[str] = []
    moved = time.monotonic()
    watchdog = threading.Timer(APT_SECONDS, process.kill)
    watchdog.start()
    with process, percent_bar(text) as progress:
        try:
            for line in process.stdout:
                percent = _percent(line, progress.n)
                if percent != progress.n:
                    progress.n, moved = percent, time.monotonic()
                    progress.refresh()
                if time.monotonic() - moved > STALL_SECONDS:
                    return [f"apt-get made no progress for {STALL_SECONDS:.0f} s"]
                if line.startswith(("E: ", "W: Failed to fetch")):
                    complaints.append(line[3:].strip())
        finally:
            watchdog.cancel()
            process.kill()
    return sorted(complaints, key=lambda complaint: not complaint.startswith("Failed to fetch"))


def _percent(line: str, before: float) -> float:
    """Return the percentage in a line such as "dlstatus:1:53.2:Retrieving file 1 of 3", else `before`."""
    fields = line.split(":")
    return float(fields[2]) if fields[0] == "dlstatus" and len(fields) > 2 else before


def _environment() -> dict[str, str]:
    """Return the environment with messages in English, which alone are understood here."""
    return {**os.environ, "LC_ALL": "C"}
