"""Check this machine and print a fix for each problem. Nothing is downloaded or changed."""

from __future__ import annotations

import argparse
import json
from typing import NoReturn

from vgg_lightning.base.errors import UserError, nearest


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of the project's are."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"doctor: {message}")


def main(args: list[str]) -> int:
    """Print the findings; return 0 if a run would work here, else 1."""
    parser = _Parser(prog="vgg-lightning doctor", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data_dir", metavar="DIR", help="the data folder, if it is not the default")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options, extra = parser.parse_known_args(args)
    if extra:
        raise UserError(f"option {extra[0]} is unknown{nearest(extra[0], ('--data_dir', '--json', '--help'))}")
    from vgg_lightning.cli.checks import examine

    findings = examine(options.data_dir)
    broken = sum(finding.state == "broken" for finding in findings)
    if options.json:
        print(json.dumps({"works": not broken, "findings": [finding._asdict() for finding in findings]}, indent=2))
        return int(bool(broken))
    for finding in findings:
        print(f"{finding.state:<7}{finding.what:<13}{finding.found}")
        if finding.remedy:
            print(f"{'':<20}-> {finding.remedy}")
    print(f"\n{f'{broken} broken: a run would fail here' if broken else 'a run works here'}")
    return int(bool(broken))
