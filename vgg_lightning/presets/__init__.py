"""The presets: named configurations that are shipped with the package.

Imports `base`.
"""

from __future__ import annotations

from pathlib import Path

from vgg_lightning.base.errors import UserError, nearest
from vgg_lightning.base.options_file import read_options

FOLDER = Path(__file__).parent
DEFAULT = "quick"
BLANK = "blank"  # for a network that has no preset: without options of a network


def presets() -> dict[str, Path]:
    """Return name -> file of every preset, such as "quick" and "sources/vgg11"."""
    files = sorted(FOLDER.rglob("*.yaml"), key=lambda file: (len(file.relative_to(FOLDER).parts), file))
    return {file.relative_to(FOLDER).with_suffix("").as_posix(): file for file in files}


def find_config(name_or_file: str) -> Path:
    """Return the file of a configuration given by preset name or by path.

    Raises:
        UserError: if there is neither.
    """
    known = presets()
    if name_or_file in known:
        return known[name_or_file]
    file = Path(name_or_file).expanduser()
    if file.is_file():
        return file
    raise UserError(
        f"--config {name_or_file!r} is neither a file nor a preset{nearest(name_or_file, known)}: "
        f"the presets are {', '.join(known)}"
    )


def check_config(file: Path) -> Path:
    """Return `file` if it can be read and is YAML with options.

    Raises:
        UserError: if it is not.
    """
    if not isinstance(read_options(file, f"--config {file}"), dict):
        raise UserError(f"--config {file} holds no options: write groups such as `model:` with `lr: 0.1` below")
    return file


def header(file: Path) -> dict[str, str]:
    """Return the comment lines at the top of a preset as "about" and the keys they name ("cost: ...")."""
    about, fields = [], {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        key, separator, value = line.lstrip("# ").partition(": ")
        if separator and key in ("command", "cost", "reaches"):
            fields[key] = value.strip()
        else:
            about.append(line.lstrip("# ").strip())
    return {"about": " ".join(about), **fields}
