"""Own images as people have them: colour images of mixed sizes, a folder for each class.

python tests/reliability/shapes.py shapes
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "star", "triangle")


def draw_shapes(folder: Path, count: int = 60, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> Path:
    """Write `count` PNGs of every class: a shape of any colour, size and place on a light background.

    Args:
        folder: gets a subfolder for each class.
        count: images of each class.
        classes: some of `CLASSES`.
        seed: of what is random.
    """
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            width, height = (int(n) for n in random.integers(40, 121, 2))
            image = Image.new("RGB", (width, height), tuple(int(n) for n in random.integers(225, 256, 3)))
            radius = float(random.uniform(0.22, 0.42)) * min(width, height)
            x = float(random.uniform(radius + 3, width - radius - 3))
            y = float(random.uniform(radius + 3, height - radius - 3))
            colour = tuple(int(n) for n in random.integers(0, 170, 3))
            ImageDraw.Draw(image).polygon(_outline(name, x, y, radius, float(random.uniform(-0.2, 0.2))), fill=colour)
            image.save(folder / name / f"{i:03}.png")
    return folder


def _outline(name: str, x: float, y: float, radius: float, turn: float) -> list[tuple[float, float]]:
    """Return the corners of a shape."""
    corners = {"circle": 60, "square": 4, "star": 10, "triangle": 3}[name]
    turn += math.pi / 4 if name == "square" else -math.pi / 2
    lengths = [radius * (0.4 if name == "star" and k % 2 else 1.0) for k in range(corners)]
    angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(lengths, angles, strict=True)]


if __name__ == "__main__":
    draw_shapes(Path(sys.argv[1]))
