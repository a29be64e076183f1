"""The places where the files of a data set may come from, tried in turn.

Imports `base`.
"""

from __future__ import annotations

from collections.abc import Callable

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.sources import debian, download, local
from vgg_lightning.data.sources.store import Job, SourceError

# In the order of what they cost: nothing, a copy, a download, the lists of an archive and a download.
SOURCES: dict[str, Callable[[Job], None]] = {
    "files laid by hand": local.by_hand,
    "Debian package": debian.installed,
    "download": download.from_mirror,
    "package archive": debian.archive,
}


def obtain(job: Job) -> None:
    """Have the wanted files from the first sources that hold them.

    Raises:
        UserError: No source has them all: the message gives each source, why it failed and what to do.
    """
    reasons = []
    for name, fetch in SOURCES.items():
        if not job.wanted:
            return
        try:
            fetch(job)
        except (SourceError, OSError) as error:
            reasons.append(f"  {name}: {error}")
    if job.wanted:
        raise UserError("\n".join([_summary(job), *reasons]))


def _summary(job: Job) -> str:
    """Say which file is wanted, and why."""
    (name, fault), *others = job.faults.items()
    more = f" (and {len(others)} more)" if others else ""
    return f"{job.dataset.title}: {job.folder / name} {fault}{more}, and no source has it:"
