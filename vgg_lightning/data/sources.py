"""The places where the files of a data set may come from, tried in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vgg_lightning.data import debian, download, local
from vgg_lightning.data.store import Job, SourceError
from vgg_lightning.errors import UserError


@dataclass(frozen=True)
class Source:
    """One place to have files from.

    Attributes:
        name: What it is called in messages.
        fetch: Takes what it has of the wanted files; raises SourceError where that is not all.
        remedy: What a user can do to make it work; may name the {package}.
    """

    name: str
    fetch: Callable[[Job], None]
    remedy: str


# Ordered by what they cost: nothing, a local copy, one download, the lists of an archive and a download.
SOURCES = (
    Source("files laid by hand", local.by_hand, "put the four .gz or raw files there"),
    Source("Debian package", debian.installed, "sudo apt-get install {package}"),
    Source("download", download.from_mirror, f"connect, or name a mirror with {download.MIRROR_VARIABLE}"),
    Source("package archive", debian.archive, "connect; for Debian and Ubuntu only"),
)


def obtain(job: Job) -> None:
    """Have the wanted files from the first sources that hold them.

    Raises:
        UserError: No source has them all: the message gives each source, why it failed and what to do.
    """
    reasons = []
    for source in SOURCES:
        try:
            source.fetch(job)
        except (SourceError, OSError) as error:
            remedy = source.remedy.format(package=job.dataset.package)
            reasons.append(f"  {source.name}: {error} - {remedy}")
        if not job.wanted:
            return
    raise UserError("\n".join([_summary(job), *reasons]))


def _summary(job: Job) -> str:
    """Say which file is wanted, and why."""
    (name, fault), *others = job.faults.items()
    more = f" (and {len(others)} more)" if others else ""
    return f"{job.dataset.title}: {job.folder / name} {fault}{more}, and no source has it:"
