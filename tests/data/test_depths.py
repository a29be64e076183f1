"""An image has the class that it has, in whatever number of bits and mode it is kept."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from vgg_lightning.base.errors import UserError
from vgg_lightning.data.images import decode
from vgg_lightning.data.images.decode import to_uint8


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    decode.tell.cache_clear()


def ellipse(level=255):
    """A lit ellipse on black, uint8 (60, 80); its upper half is darker."""
    y, x = np.mgrid[:60, :80]
    inside = ((x - 40) / 30) ** 2 + ((y - 30) / 15) ** 2 < 1
    return (inside * np.where(y < 30, level // 2, level)).astype(np.uint8)


def in_bits(bits, level=255):
    """The same in another number of bits."""
    return np.rint(ellipse(level) / 255.0 * (2**bits - 1)).astype(np.uint32)


def same(image, of=None, tolerance=1.0):
    found, expected = to_uint8(image).float(), to_uint8(Image.fromarray(ellipse()) if of is None else of).float()
    assert (found - expected).abs().max() <= tolerance
    return True


def png(values, kind):
    """A PNG of 16 bits a channel: kind 0 grey, 4 grey and alpha, 2 RGB, 6 RGBA."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(values, order, kind=1):
    """An uncompressed TIFF of one strip, in either order of bytes; `kind` is its sample format."""
    mark, end = {"<": (b"II*\0", "<"), ">": (b"MM\0*", ">")}[order]
    height, width, channels = (*values.shape, 1)[:3]
    bits, data = 8 * values.dtype.itemsize, values.astype(values.dtype.newbyteorder(order)).tobytes()
    entries, extra = [], b""
    start = 8 + len(data)

    def entry(tag, form, *numbers):
        nonlocal extra
        size = struct.calcsize(form)
        packed = struct.pack(f"{end}{len(numbers)}{form}", *numbers)
        if len(packed) > 4:
            place, extra = start + len(extra), extra + packed
            packed = struct.pack(f"{end}I", place)
        entries.append(struct.pack(f"{end}HHI", tag, {2: 3, 4: 4}[size], len(numbers)) + packed.ljust(4, b"\0"))

    for tag, form, *numbers in (
        (256, "I", width), (257, "I", height), (258, "H", *[bits] * channels), (259, "H", 1),
        (262, "H", 2 if channels >= 3 else 1), (273, "I", 8), (277, "H", channels), (278, "I", height),
        (279, "I", len(data)), *([(338, "H", 2)] if channels == 4 else []), (339, "H", *[kind] * channels),
    ):  # fmt: skip
        entry(tag, form, *numbers)
    table = struct.pack(f"{end}H", len(entries)) + b"".join(entries) + struct.pack(f"{end}I", 0)
    return mark + struct.pack(f"{end}I", start + len(extra)) + data + extra + table


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("keep", ["png", "tiff <", "tiff >", "int32", "uint16", "int32 tiff <", "float"])
def test_an_image_of_few_bits_in_a_deep_file_looks_like_the_one_of_eight(bits, keep, capsys):
    values = in_bits(bits)
    form, _, order = keep.rpartition(" ") if " " in keep else (keep, "", "")
    made = {
        "png": lambda: png(values, 0),
        "tiff": lambda: tiff(values.astype(np.uint16), order),
        "int32": lambda: Image.fromarray(values.astype(np.int32)),
        "uint16": lambda: Image.fromarray(values.astype(np.uint16)),
        "int32 tiff": lambda: tiff(values.astype(np.int32), order, kind=2),
        "float": lambda: Image.fromarray(values.astype(np.float32)),
    }[form]()
    same(made)
    said = capsys.readouterr().err
    assert said.count("\n") == (bits < 16)
    assert bits == 16 or f"is read as one of {bits} (white is {2**bits - 1:,})" in said


def test_what_is_guessed_is_said_once(capsys):
    for _ in range(3):
        to_uint8([png(in_bits(12), 0), png(in_bits(12, 250), 0)])
    assert capsys.readouterr().err.count("12 (white is 4,095)") == 1


@pytest.mark.parametrize("level", [60, 130, 255])
def test_eight_bits_spread_over_sixteen_stay_as_bright_as_they_are(level, capsys):
    same(png(ellipse(level).astype(np.uint16) * 257, 0), Image.fromarray(ellipse(level)))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [2, 4, 6])
def test_colour_and_transparency_of_sixteen_bits_keep_their_lower_ones(bits, kind):
    values = in_bits(bits)
    seen = np.full_like(values, 65535)
    bands = {2: [values] * 3, 4: [values, seen], 6: [values] * 3 + [seen]}[kind]
    same(png(np.stack(bands, axis=2), kind), tolerance=1.5)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_so_do_those_of_a_tiff(bits, order, channels):
    values = np.stack([in_bits(bits)] * 3 + [np.full((60, 80), 65535)] * (channels - 3), axis=2).astype(np.uint16)
    same(tiff(values, order), tolerance=1.5)


def test_colours_of_sixteen_bits_that_are_used_are_read_as_ever():
    values = np.stack([in_bits(16)] * 3, axis=2)
    eight = Image.fromarray((values >> 8).astype(np.uint8))
    assert torch.equal(to_uint8(png(values, 2)), to_uint8(eight))


def test_a_turned_image_of_twelve_bits_is_turned_back():
    exif = Image.Exif()
    exif[0x0112] = 3
    content = png(np.stack([in_bits(12)[::-1, ::-1]] * 3, axis=2), 2)
    tag = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(tag)) + b"eXIf" + tag + struct.pack(">I", zlib.crc32(b"eXIf" + tag))
    same(content[:33] + chunk + content[33:], tolerance=1.5)


MODES = ["1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "I", "F"]


@pytest.mark.parametrize("mode", [*MODES, "I;16", "I;16L", "I;16B"])
def test_every_mode_shows_the_same(mode):
    grey = Image.fromarray(ellipse())
    if mode.startswith("I;16"):
        order = ">" if mode.endswith("B") else "<"
        image = Image.frombytes(mode, grey.size, (ellipse().astype(np.uint16) * 16).astype(f"{order}u2").tobytes())
    elif mode == "LAB":
        image = Image.merge("LAB", [grey, Image.new("L", grey.size, 128), Image.new("L", grey.size, 128)])
    else:
        image = grey.convert({"PA": "LA", "La": "LA", "RGBa": "RGBA", "HSV": "RGB"}.get(mode, mode)).convert(mode)
    same(image, tolerance={"1": 130, "LAB": 10}.get(mode, 4))  # 1 bit: the darker half is dithered


@pytest.mark.parametrize("level", [0, 7, 128, 255])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (60, 90), (400, 300)])
def test_an_empty_image_is_named_and_not_classified(level, size, tmp_path):
    noise = np.random.default_rng(0).integers(-2, 3, size)
    for array in (np.full(size, level), np.clip(level + noise, 0, 255)):
        file = tmp_path / "page.png"
        Image.fromarray(array.astype(np.uint8)).save(file)
        for image in (file, str(file), file.read_bytes(), Image.open(file)):
            with pytest.raises(UserError, match="it is empty: nothing in it differs from its background"):
                to_uint8(image)


def test_so_is_a_page_of_sixteen_bits_and_one_that_is_transparent():
    for image in (
        png(np.full((40, 40), 4095), 0), png(np.full((40, 40, 3), 300), 2), Image.new("RGBA", (40, 40)),
        Image.new("F", (40, 40), 0.5),
    ):  # fmt: skip
        with pytest.raises(UserError, match="it is empty"):
            to_uint8(image)


def test_a_thing_that_fills_its_square_is_not_empty():
    page = np.full((90, 90), 255, np.uint8)
    page[20:60, 30:70] = 0
    assert to_uint8(Image.fromarray(page)).min() > 200


def test_an_array_of_zeros_is_data():
    assert to_uint8(np.zeros((2, 28, 28), np.uint8)).shape == (2, 1, 28, 28)
