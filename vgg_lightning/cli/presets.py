"""`vgg-lightning presets`: the shipped configurations, with what each costs and reaches."""

from __future__ import annotations

import argparse

from vgg_lightning.base.errors import UserError
from vgg_lightning.presets import header, presets


def main(args: list[str]) -> int:
    """Print a table of the presets."""
    parser = argparse.ArgumentParser(prog="vgg-lightning presets", description=__doc__, allow_abbrev=False)
    _, extra = parser.parse_known_args(args)
    if extra:
        raise UserError(f"presets takes no {extra[0]!r}: it lists all; use one with vgg-lightning fit --config NAME")
    for name, file in presets().items():
        fields = header(file)
        print(f"{name}\n    {fields['about']}")
        for key in ("cost", "reaches"):
            if key in fields:
                print(f"    {key}: {fields[key]}")
    print("\nuse one: vgg-lightning fit --config NAME")
    return 0
