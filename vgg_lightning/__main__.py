"""`python -m vgg_lightning`, and the entry point of the command `vgg-lightning`."""

from __future__ import annotations

import sys

from vgg_lightning.cli.entry import SUBCOMMANDS, VERBS, guarded, main, usage

__all__ = ["SUBCOMMANDS", "VERBS", "guarded", "main", "usage"]

if __name__ == "__main__":
    sys.exit(main())
