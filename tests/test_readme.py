"""README.md tells of every verb; that what it says works is looked at in test_docs.py."""

import re
from pathlib import Path

from vgg_lightning.__main__ import VERBS

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_every_verb_is_told_of():
    told = set(re.findall(r"`vgg-lightning ([a-z]+)", TEXT))
    assert set(VERBS) - told <= {"validate"}
