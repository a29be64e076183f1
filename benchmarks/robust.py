"""Measure predictions on images that look like other people's photographs: `python -m benchmarks.robust`.

Each image is made of one of the data set: enlarged, dark on white paper with a margin, as in a shop, and then changed
in one way (`CHANGES`) or in three to five at once ("together"). It is saved as JPEG and goes the way of every own
image, through `decode` and `prepare_image`, into the network. `unchanged` is the accuracy on the same images without
the change; `caused` counts the images that are right without it and wrong with it. An image that is refused as empty
counts as wrong.

Tune on the validation images, the default; `--split test` is for the last figure. Its changes are other draws. The
rows, one for each change, go into results/robust.csv; those of another `prepare_image.py` or of other weights stay.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shlex
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.machine import processor
from benchmarks.runner import RESULTS, in_words
from benchmarks.table import Table
from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.versions import versions
from vgg_lightning.data.images import prepare_image
from vgg_lightning.data.images.decode import EmptyPictureError, pixels_of

COLUMNS = (
    *("weights", "preparation", "split", "change", "images", "unchanged", "accuracy", "caused"),
    *("device", "versions", "command"),
)
KEY = ("weights", "preparation", "split", "change", "images")
CHANGES = {
    "mirrored": "left and right exchanged",
    "turned": "turned by 15 to 30 degrees",
    "standing": "shoes alone: turned by 75 to 105 degrees",
    "thin margin": "1 or 2 pixels between the thing and the edge of the image",
    "wide margin": "on each side a margin as wide as .25 to .6 of the thing",
    "coloured paper": "paper of any light colour",
    "shaded paper": "light that falls off by 20 to 50 % in any direction",
    "soft shadow": "a blurred shadow beside the thing",
    "bright": "a white thing on white paper: .12 to .3 of the contrast",
    "flat colour": "one level, or two, in place of texture",
    "cut off": "a tenth to a quarter of the thing beyond one edge",
}
TOGETHER = "together"
SHOES = (5, 7, 9)  # sandal, sneaker, ankle boot
SEEDS = {"val": 0, "test": 1}
SCALE = 8  # pixels of the photograph for each of the data set's
DARK = 8  # grey level up to which a pixel that is connected to the edge is background
EMPTY = -1  # the class of an image that is refused
Levels = NDArray[np.float64]


def silhouette(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels are the thing, holes without a way to the edge included: bool (28, 28)."""
    padded = Image.fromarray(np.pad(255 * (image > DARK).astype(np.uint8), 1)).copy()  # which can be drawn on
    ImageDraw.floodfill(padded, (0, 0), 128)
    solid: NDArray[np.bool_] = np.asarray(padded)[1:-1, 1:-1] != 128
    return solid


def photograph(image: NDArray[np.uint8], changes: set[str], random: np.random.Generator) -> Image.Image:
    """Return an image of the data set, uint8 (28, 28), as a photograph in RGB that is changed in these ways."""
    solid = silhouette(image)
    levels: NDArray[np.floating[Any]] = image.astype(np.float64)
    if "flat colour" in changes:
        levels = _flat(levels, solid, random)
    if "bright" in changes:
        levels = solid * (random.uniform(4, 16) + random.uniform(0.12, 0.3) * levels)
    large = _enlarged(levels)
    opaque = _enlarged(255.0 * solid)
    if "mirrored" in changes:
        large, opaque = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (large, opaque))
    angle = random.choice([-1, 1]) * random.uniform(15, 30) if "turned" in changes else 0.0
    if "standing" in changes:
        angle += random.choice([-1, 1]) * random.uniform(75, 105)
    if angle:
        large, opaque = (x.rotate(angle, Image.Resampling.BICUBIC, expand=True) for x in (large, opaque))
    box = opaque.point(lambda level: 255 * (level > DARK)).getbbox() or (0, 0, *opaque.size)
    large, opaque = large.crop(box), opaque.crop(box)
    return _on_paper(large, opaque, changes, random)


def _flat(levels: NDArray[np.floating[Any]], solid: NDArray[np.bool_], random: np.random.Generator) -> Levels:
    mean = levels[solid].mean() if solid.any() else 0.0
    if random.random() < 0.5:
        return np.where(solid, mean, 0.0)
    light = solid & (levels > mean)
    low, high = (levels[part].mean() if part.any() else mean for part in (solid & ~light, light))
    return np.where(light, high, np.where(solid, low, 0.0))


def _enlarged(levels: NDArray[np.floating[Any]]) -> Image.Image:
    side = SCALE * len(levels)
    return Image.fromarray(np.rint(levels).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def _on_paper(large: Image.Image, opaque: Image.Image, changes: set[str], random: np.random.Generator) -> Image.Image:
    """Return a thing, light on black, with its opacity, as a photograph on paper."""
    sides = np.array([max(large.size) * random.uniform(0.1, 0.25)] * 4).astype(int)  # left, top, right, bottom
    if "thin margin" in changes:
        sides[:] = random.integers(1, 3, 4)
    if "wide margin" in changes:
        sides = (max(large.size) * random.uniform(0.25, 0.6, 4)).astype(int)
    if "cut off" in changes:
        edge = int(random.integers(4))
        sides[edge] = -int(large.size[edge % 2] * random.uniform(0.1, 0.25))
    width, height = large.width + sides[0] + sides[2], large.height + sides[1] + sides[3]

    def placed(part: Image.Image, x: int = 0, y: int = 0) -> Levels:
        page = Image.new("L", (int(width), int(height)))
        page.paste(part, (int(sides[0]) + x, int(sides[1]) + y))
        return np.asarray(page, dtype=np.float64) / 255

    paper = random.uniform(120, 255, 3) if "coloured paper" in changes else np.full(3, 255.0)
    page = np.ones((int(height), int(width), 1)) * paper
    if "soft shadow" in changes:
        x, y = (int(n) for n in random.choice([-1, 1], 2) * random.integers(8, 21, 2))
        around = Image.fromarray(np.rint(255 * placed(opaque, x, y)).astype(np.uint8))
        blurred = np.asarray(around.filter(ImageFilter.GaussianBlur(random.uniform(8, 16))), dtype=np.float64) / 255
        page = page * (1 - random.uniform(0.2, 0.45) * blurred[..., None])
    thing, alpha = 255 - 255 * placed(large)[..., None], placed(opaque)[..., None]
    page = page * (1 - alpha) + thing * alpha if changes & {"coloured paper", "soft shadow"} else thing * page / 255
    if "shaded paper" in changes:
        page = page * _light(int(width), int(height), random)[..., None]
    return Image.fromarray(np.rint(page.clip(0, 255)).astype(np.uint8))


def _light(width: int, height: int, random: np.random.Generator) -> Levels:
    """Return the share of the light that reaches each pixel: 1 at one edge or corner, .5 to .8 at the other."""
    turn = random.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    along = np.cos(turn) * x + np.sin(turn) * y
    far: Levels = (along - along.min()) / np.ptp(along)
    return 1 - random.uniform(0.2, 0.5) * far


def drawn(change: str, random: np.random.Generator, label: int) -> set[str]:
    """Return the changes of one image: the one that is named, or three to five that can go together."""
    if change != TOGETHER:
        return {change} if change in CHANGES else set()
    names = [name for name in CHANGES if name != "standing" or label in SHOES]
    chosen = {str(name) for name in random.choice(names, int(random.integers(3, 6)), replace=False)}
    return chosen - ({"thin margin"} if "wide margin" in chosen else set())


def as_file(image: Image.Image) -> bytes:
    """Return the bytes of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def answers(
    model: Classifier, images: NDArray[np.uint8], labels: NDArray[np.int64], change: str, seed: int
) -> NDArray[np.int64]:
    """Return the predicted classes (N,) of images (N, 28, 28) that are changed; `EMPTY` for those that are refused."""
    prepared: list[NDArray[np.uint8] | None] = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        random = np.random.default_rng((seed, zlib.crc32(change.encode()), i))
        try:
            prepared.append(pixels_of(as_file(photograph(image, drawn(change, random, int(label)), random))))
        except EmptyPictureError:
            prepared.append(None)
    seen = np.array([pixels is not None for pixels in prepared])
    found = np.full(len(images), EMPTY)
    batch = [torch.from_numpy(pixels) for pixels in prepared if pixels is not None]
    if batch:
        found[seen] = model.predict(torch.stack(batch)).probabilities.argmax(dim=1).numpy()
    return found


def digest(file: Path) -> str:
    """Return what tells the contents of files apart: 8 digits of their SHA-256."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:8]


def main(args: list[str] | None = None) -> None:
    """Measure every change, print and keep the figures."""
    args = sys.argv[1:] if args is None else args
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="reference", help="run or checkpoint")
    parser.add_argument("--split", choices=tuple(SEEDS), default="val")
    parser.add_argument("--images", type=int, default=1000, help="for each change (default 1000)")
    parser.add_argument("--only", nargs="+", choices=(*CHANGES, TOGETHER), default=(*CHANGES, TOGETHER))
    parser.add_argument("--table", type=Path, default=RESULTS / "robust.csv")
    parser.add_argument("--data_dir", help="folder of IDX files in place of Fashion-MNIST")
    options = parser.parse_args(args)
    model = load_classifier(options.weights)
    data = FashionMNISTDataModule(**({"dataset": "idx", "data_dir": options.data_dir} if options.data_dir else {}))
    tensors, classes = data.images(options.split)
    images, labels = tensors[: options.images, 0].numpy(), classes[: options.images].numpy()
    seed = SEEDS[options.split]
    weights = Path(options.weights).name if Path(options.weights).exists() else options.weights
    preparation = digest(Path(prepare_image.__file__))  # as it is now, whatever is written while this measures
    plain = answers(model, images, labels, "unchanged", seed) == labels
    table = Table(options.table, COLUMNS, KEY)
    for change in options.only:
        of = np.isin(labels, SHOES) if change == "standing" else np.full(len(labels), True)
        right = answers(model, images[of], labels[of], change, seed) == labels[of]
        caused = int((plain[of] & ~right).sum())
        figures = {"unchanged": f"{plain[of].mean():.4f}", "accuracy": f"{right.mean():.4f}", "caused": str(caused)}
        place = {"device": processor(), "versions": in_words(versions())}
        key = {"weights": weights, "preparation": preparation, "split": options.split}
        command = shlex.join(["python", "-m", "benchmarks.robust", *args])
        table.put([{**key, "change": change, "images": str(of.sum()), **figures, **place, "command": command}])
        print(
            f"{change:<15} {100 * right.mean():6.2f} % of {of.sum()}, unchanged {100 * plain[of].mean():.2f} %: "
            f"{caused} errors caused",
            flush=True,
        )


if __name__ == "__main__":
    main()
