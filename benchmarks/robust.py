"""Measure what a classifier makes of photographs: `python -m benchmarks.robust`.

Images of Fashion-MNIST become photographs of 8 times their size: a garment on paper, with the noise of a camera. Each
change below is made to such a photograph alone, then several together, and the whole way of `predict` is taken, from a
file's content to the class. The validation images are for trying things out; `--split test` makes other photographs, of
other images and with other draws, for a figure that nothing was chosen by. The rows go into results/robust.csv.

`caused` are images that are right without the change and wrong with it. With `--weights` another run is measured.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.machine import processor
from benchmarks.runner import RESULTS, in_words
from benchmarks.table import Table
from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.seeds import derive_seed
from vgg_lightning.base.versions import versions
from vgg_lightning.data.images.prepare_image import EmptyImageError, prepare

COLUMNS = (
    *("split", "weights", "change", "images", "accuracy", "caused", "accuracy_plain", "device", "versions", "command"),
)
SCALE = 8  # of the photograph
SEEDS = {"val": 1, "test": 2}
LIGHT = 255.0  # white
FAINT = 16  # levels below which a pixel of the data set is a garment's in part
NOISE = 2.0  # grey levels, standard deviation
TOGETHER = 3  # changes
Levels = NDArray[np.float64]
Draws = np.random.Generator


class Photo:
    """A garment that is to be photographed.

    Args:
        image: of the data set, uint8 (28, 28), light on black.

    Attributes:
        garment: its grey levels, dark on white, float (H, W).
        cover: which part of a pixel it covers, 0 to 1.
        margin: free paper at the top, bottom, left and right, shares of its longer edge; negative cuts it off.
        paper: level of each channel of the paper, 0 to 255.
        gradient: by how much the light changes from top to bottom and from left to right, shares of it.
        shadow: where the garment's shadow falls, in pixels of the data set (x, y), and the light it takes, if any.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        rows, columns = np.flatnonzero(image.max(axis=1) > FAINT), np.flatnonzero(image.max(axis=0) > FAINT)
        cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else image
        large = _resized(cut, (SCALE * cut.shape[1], SCALE * cut.shape[0]))
        self.garment = LIGHT - large
        self.cover = np.clip(large / FAINT, 0, 1)
        self.margin = [0.2, 0.2, 0.2, 0.2]
        self.paper = np.array([LIGHT] * 3)
        self.gradient = (0.0, 0.0)
        self.shadow: tuple[float, float, float] | None = None

    def taken(self, draws: Draws) -> bytes:
        """Return the photograph as a PNG file."""
        height, width = self.garment.shape
        edges = [round(share * max(height, width)) for share in self.margin]
        size = max(8, height + edges[0] + edges[1]), max(8, width + edges[2] + edges[3])
        cover, garment = _placed(self.cover, size, edges, 0.0), _placed(self.garment, size, edges, LIGHT)
        down, right = np.linspace(-0.5, 0.5, size[0])[:, None], np.linspace(-0.5, 0.5, size[1])[None]
        light = 1 + self.gradient[0] * down + self.gradient[1] * right - sum(map(abs, self.gradient)) / 2
        if self.shadow:
            dx, dy, depth = self.shadow
            moved = Image.fromarray((LIGHT * cover).astype(np.uint8)).filter(ImageFilter.GaussianBlur(10))
            cast = np.roll(np.asarray(moved) / LIGHT, (round(dy * SCALE), round(dx * SCALE)), axis=(0, 1))
            light = light * (1 - depth * cast)
        paper = self.paper * light[..., None]
        levels = paper * (1 - cover[..., None]) + garment[..., None] * cover[..., None]
        levels += draws.normal(0, NOISE, (*size, 1))
        content = io.BytesIO()
        Image.fromarray(levels.clip(0, LIGHT).astype(np.uint8)).save(content, "PNG")
        return content.getvalue()


def _resized(levels: NDArray[np.uint8], size: tuple[int, int]) -> Levels:
    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC), dtype=float)


def _placed(levels: Levels, size: tuple[int, int], edges: Sequence[int], around: float) -> Levels:
    """Return levels in the middle of a canvas, those beyond its edges cut off."""
    canvas = np.full(size, around)
    top, left = edges[0], edges[2]
    height, width = levels.shape
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, size[0]), min(left + width, size[1])
    canvas[y0:y1, x0:x1] = levels[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def mirrored(photo: Photo, draws: Draws) -> None:
    """Shoes that point right, and the like."""
    photo.garment, photo.cover = photo.garment[:, ::-1], photo.cover[:, ::-1]


def turned(photo: Photo, draws: Draws) -> None:
    """Turned by 10 to 30 degrees."""
    angle = draws.uniform(10, 30) * draws.choice([-1, 1])
    photo.garment = _turned(photo.garment, angle, LIGHT)
    photo.cover = _turned(LIGHT * photo.cover, angle, 0) / LIGHT


def _turned(levels: Levels, angle: float, around: float) -> Levels:
    image = Image.fromarray(levels.round().astype(np.uint8))
    return np.asarray(image.rotate(angle, Image.Resampling.BILINEAR, expand=True, fillcolor=int(around)), dtype=float)


def thin_margin(photo: Photo, draws: Draws) -> None:
    """It touches the edges of the photograph, or almost."""
    photo.margin = list(draws.uniform(0, 0.02, 4))


def coloured_paper(photo: Photo, draws: Draws) -> None:
    """Paper of any colour that is not dark."""
    photo.paper = draws.uniform(150, 255, 3)


def shaded_paper(photo: Photo, draws: Draws) -> None:
    """Light from one side: the darkest corner has two thirds of the light."""
    photo.gradient = (draws.uniform(-0.17, 0.17), draws.uniform(-0.17, 0.17))


def soft_shadow(photo: Photo, draws: Draws) -> None:
    """The garment's own shadow on the paper."""
    photo.shadow = draws.uniform(-3.5, 3.5), draws.uniform(0.7, 3.5), draws.uniform(0.2, 0.4)


def bright(photo: Photo, draws: Draws) -> None:
    """A bright thing on white: a quarter of the contrast."""
    photo.garment = LIGHT - (LIGHT - photo.garment) * draws.uniform(0.2, 0.35)


def flat(photo: Photo, draws: Draws) -> None:
    """One colour without texture."""
    photo.garment = np.full_like(photo.garment, np.average(photo.garment, weights=photo.cover + 1e-6))


def cut_off(photo: Photo, draws: Draws) -> None:
    """An edge of the photograph takes a tenth to a fifth of it."""
    photo.margin[draws.integers(4)] = -draws.uniform(0.1, 0.2)


def together(photo: Photo, draws: Draws) -> None:
    """Several of the changes at once."""
    for number in draws.choice(len(CHANGES) - 2, TOGETHER, replace=False):
        list(CHANGES.values())[1 + number](photo, draws)


def none(photo: Photo, draws: Draws) -> None:
    """A photograph as those of the data set were."""


CHANGES: dict[str, Callable[[Photo, Draws], None]] = {
    "none": none,
    **{"mirrored": mirrored, "turned": turned, "thin margin": thin_margin, "coloured paper": coloured_paper},
    **{"shaded paper": shaded_paper, "soft shadow": soft_shadow, "bright on white": bright, "flat colour": flat},
    **{"cut off": cut_off, "together": together},
}


def photographs(images: NDArray[np.uint8], change: str, seed: int) -> list[bytes]:
    """Return a photograph of each image (N, 28, 28), with a change."""
    files = []
    for number, image in enumerate(images):
        draws = np.random.default_rng(derive_seed(seed, list(CHANGES).index(change), number))
        photo = Photo(image)
        CHANGES[change](photo, draws)
        files.append(photo.taken(draws))
    return files


def prepared(files: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return what `predict` makes of files, uint8 (N, 28, 28)."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in files:
            try:
                found.append(prepare(file)[0, 0])
            except EmptyImageError as error:
                found.append(error.pixels)
    return np.stack(found)


def measure(classifier: Classifier, split: str, count: int, changes: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Return which images are right, by change."""
    chosen, labels = FashionMNISTDataModule().images("val" if split == "val" else "test")
    images = chosen[:count, 0].numpy()
    return {
        change: (
            classifier.predict(prepared(photographs(images, change, SEEDS[split]))).labels == labels[:count]
        ).numpy()
        for change in changes
    }


def main(args: list[str] | None = None) -> None:
    """Measure every change, print and keep what each costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--weights", default="reference", help="a run, or a checkpoint")
    parser.add_argument("--name", help="of the weights in the table (default: as --weights)")
    own = parser.parse_args(args)
    classifier = load_classifier(own.weights)
    right = measure(classifier, own.split, own.images, list(CHANGES))
    plain = float(right["none"].mean())
    rows = []
    for change, found in right.items():
        caused = int((right["none"] & ~found).sum())
        print(f"{change:16} {100 * found.mean():6.2f} %   {caused:4} errors of its own")
        rows.append(
            {
                **{"split": own.split, "weights": own.name or own.weights, "change": change},
                **{"images": str(own.images), "accuracy": f"{found.mean():.4f}", "caused": str(caused)},
                **{"accuracy_plain": f"{plain:.4f}", "device": processor(), "versions": in_words(versions())},
                "command": f"python -m benchmarks.robust --split {own.split} --images {own.images}",
            }
        )
    Table(RESULTS / "robust.csv", COLUMNS, ("split", "weights", "change")).put(rows)


if __name__ == "__main__":
    main()
