"""Draws with Pillow, in milliseconds; importing matplotlib alone would take a second."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from vgg_lightning.base.text import printable
from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.run.tensorboard_private import add_summary

Array: TypeAlias = NDArray[Any]
Colour = tuple[int, int, int]

INK: Colour = (38, 38, 38)
GREY: Colour = (120, 120, 120)
GOOD: Colour = (0, 109, 62)
BAD: Colour = (183, 28, 28)
WHITE: Colour = (255, 255, 255)
# Colours that a value from 0 to 1 runs through.
BLUES = ((255, 255, 255), (222, 235, 247), (158, 202, 225), (66, 146, 198), (8, 69, 148), (8, 48, 107))
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
SIGNED = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))  # 0.5 is zero
WIDTH = 350  # pixels of a page: what TensorBoard has for an image beside others; wider ones it shrinks, with their text
COLOURS = 96  # in a stored image: a PNG is a third of the size then, and looks the same


def add_picture(board: Board, tag: str, picture: Image.Image, step: int) -> None:
    """Write an image; into TensorBoard, a smaller one than `SummaryWriter.add_image` makes."""
    if not isinstance(board, SummaryWriter):
        board.add_picture(tag, picture, step)
        return
    buffer = io.BytesIO()
    stored(picture).save(buffer, format="PNG", optimize=True)
    image = Summary.Image(
        height=picture.height, width=picture.width, colorspace=3, encoded_image_string=buffer.getvalue()
    )
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    add_summary(board, summary, step)


def stored(picture: Image.Image) -> Image.Image:
    """Return an image in few colours, the rare ones among them: the red of a name, the black of a small image."""
    return picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def colours(values: Array, ramp: Sequence[Colour]) -> Array:
    """Return uint8 (..., 3) for values from 0 to 1."""
    places = np.linspace(0, 1, len(ramp))
    channels = [np.interp(values, places, [colour[i] for colour in ramp]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def enlarged(pixels: Array, side: int) -> Image.Image:
    """Return uint8 pixels (H, W) or (H, W, 3) as an image of about `side` pixels; small ones keep square pixels."""
    picture = Image.fromarray(pixels).convert("RGB")
    times = side // max(picture.size)
    if times < 1:
        return picture.resize((side, side), Image.Resampling.BILINEAR)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


class Page:
    """A white image to write on.

    Args:
        width: in pixels.
        height: in pixels.
        title: at the top.
    """

    def __init__(self, width: int, height: int, title: str = "") -> None:
        self.picture = Image.new("RGB", (width, height), WHITE)
        self.draw = ImageDraw.Draw(self.picture)
        if title:
            self.text((8, 8), title, size=14, anchor="la")

    def text(
        self, place: tuple[float, float], text: str, size: int = 13, anchor: str = "mm", ink: Colour = INK
    ) -> None:
        """Write a line; `anchor` as Pillow has it: "la" begins at `place`, "mm" is centred there."""
        self.draw.text(place, printable(text), fill=ink, font=ImageFont.load_default(size), anchor=anchor)

    def label(self, place: tuple[float, float], text: str, width: float, ink: Colour = INK, anchor: str = "rm") -> None:
        """Write a name, in smaller letters and then cut off if it is wider than `width` pixels."""
        text = printable(text)
        fitting = [size for size in (13, 12, 11, 10) if ImageFont.load_default(size).getlength(text) <= width]
        size = fitting[0] if fitting else 10
        while len(text) > 1 and ImageFont.load_default(size).getlength(text) > width:
            text = text[:-2] + "\u2026" if text.endswith("\u2026") else text[:-1] + "\u2026"
        self.text(place, text, size=size, anchor=anchor, ink=ink)

    def upright(self, place: tuple[int, int], text: str, size: int = 13, bottom: bool = True) -> None:
        """Write a line from bottom to top that ends (or, with `bottom`, begins) at `place`, its middle in x."""
        font, text = ImageFont.load_default(size), printable(text)
        left, top, right, low = font.getbbox(text, anchor="la")
        label = Image.new("RGB", (int(right - left) + 4, int(low - top) + 6), WHITE)
        ImageDraw.Draw(label).text((2 - left, 3 - top), text, fill=INK, font=font, anchor="la")
        turned = label.rotate(90, expand=True)
        x, y = place
        self.picture.paste(turned, (x - turned.width // 2, y - turned.height if bottom else y))

    def box(self, corners: tuple[float, float, float, float], fill: Colour | None, line: Colour | None = None) -> None:
        """Draw a rectangle: left, top, right, bottom."""
        self.draw.rectangle(corners, fill=fill, outline=line)

    def paste(self, picture: Image.Image, place: tuple[int, int]) -> None:
        """Put an image with its upper left corner at `place`."""
        self.picture.paste(picture, place)


Caption: TypeAlias = Sequence[tuple[str, Colour]]


def gallery(
    title: str, remark: str, pictures: Sequence[Image.Image], captions: Sequence[Caption], columns: int
) -> Image.Image:
    """Return images side by side, each with lines of text below it.

    Args:
        title: at the top.
        remark: below the title.
        pictures: images of the same size.
        captions: for each image its lines and their colours.
        columns: images in a row.
    """
    side = pictures[0].height if pictures else 0
    lines = max((len(caption) for caption in captions), default=0)
    height, width = side + 15 * lines + 8, (WIDTH - 8) // columns
    rows = -(-len(pictures) // columns)
    page = Page(WIDTH, max(rows * height, 30) + 52, title)
    page.text((8, 28), remark, size=12, anchor="la", ink=GREY)
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = 4 + i % columns * width, 50 + i // columns * height
        page.paste(picture, (x + (width - picture.width) // 2, y))
        for k, (text, ink) in enumerate(caption):
            page.label((x + width / 2, y + side + 9 + 15 * k), text, width - 2, ink, anchor="mm")
    return page.picture
