"""`vgg-lightning predict --data.predict_path`: every kind of image, every kind of trap, one answer for each."""

import csv
import io
import json
import os
import random
import socket
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loops.prediction_loop import _PredictionLoop
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import fit, launch, one_line

from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.cli.prediction_files import columns
from vgg_lightning.data.images import decode
from vgg_lightning.data.images.decode import to_uint8

REFERENCE = Path(__file__).parents[2] / "lightning_logs/reference/version_0"


def thing(width=60, height=40):
    """A grey image of something light on black that fills it, and looks different from every side."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[:, width // 3 : width // 2] = 200
    pixels[height - height // 3 :, :] = 120
    pixels[: height // 4, : width // 5] = 250
    return pixels


def shop(level=255, margin=20, **size):
    """The same, dark on a background of another level, with a margin."""
    return Image.fromarray(np.pad((level * (1 - thing(**size) / 255)).astype(np.uint8), margin, constant_values=level))


def near(ours, theirs, tolerance=3):
    difference = (to_uint8(ours).float() - to_uint8(theirs).float()).abs().mean()
    assert difference <= tolerance, difference
    return True


def predict(folder, path, *options, run=REFERENCE):
    arguments = ["predict", "--ckpt_path", str(run), "--data.predict_path", str(path), "--trainer.accelerator", "cpu"]
    return launch([*arguments, *options], folder)


def answers(folder):
    return json.loads((folder / "predictions.json").read_text())


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


# From a file to 28 x 28.


def test_the_data_sets_own_form_passes_as_it_is(pictures):
    image = np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)
    image[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
    for name, pixels in (("same", image), ("inverted", 255 - image)):
        Image.fromarray(pixels).save(pictures / f"{name}.png")
        assert torch.equal(to_uint8(pictures / f"{name}.png")[0, 0], torch.from_numpy(image))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tiff"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_format_and_mode(pictures, suffix, mode):
    if (mode, suffix) in (("I;16", "webp"), ("I;16", "gif"), ("1", "jpg")):
        pytest.skip("PIL clips or blurs it when it writes")
    image = Image.fromarray(np.asarray(shop()).astype(np.uint16) * 257) if mode == "I;16" else shop().convert(mode)
    file = pictures / f"picture.{suffix}"
    try:
        image.save(file)
    except (OSError, ValueError):
        pytest.skip(f"{suffix} holds no {mode}")
    near(file, shop(), tolerance=20 if mode == "1" else 6)  # 1 bit is dithered


def test_sixteen_bits_are_scaled_and_not_clipped(pictures):
    values = np.linspace(0, 65535, 784).reshape(28, 28).astype(np.uint16)
    values[-1, [0, -1]] = 0  # or else the background is light
    Image.fromarray(values).save(pictures / "a.png")
    assert torch.equal(to_uint8(pictures / "a.png")[0, 0], torch.from_numpy(np.rint(values / 257).astype(np.uint8)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "jpg"])
def test_a_turned_picture_is_the_upright_one(pictures, orientation, suffix):
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    upright = shop(width=48, height=32, margin=16).convert("RGB")
    turned = upright.transpose(back[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    turned.save(pictures / f"turned.{suffix}", exif=exif, **lossless)
    if suffix == "jpg":
        near(pictures / f"turned.{suffix}", upright, tolerance=2)
    else:
        assert torch.equal(to_uint8(pictures / f"turned.{suffix}"), to_uint8(upright))


def cut_out(color):
    """A disc on nothing; the colour of what is not seen is wrong on purpose."""
    y, x = np.mgrid[:80, :80]
    seen = (x - 40) ** 2 + (y - 40) ** 2 < 900
    pixels = np.zeros((80, 80, 4), np.uint8)
    pixels[..., :3] = np.where(seen[..., None], color, 255 - np.array(color))
    pixels[..., 3] = seen * 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (180, 30, 30), (40, 60, 200)])
def test_what_is_transparent_is_background(pictures, color):
    cut_out(color).save(pictures / "a.png")
    cut_out(color).quantize(8).save(pictures / "b.png")  # a palette with a transparent entry
    for name in ("a", "b"):
        image = to_uint8(pictures / f"{name}.png")[0, 0]
        assert image[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 16
        assert image[14, 14] > 70
        assert (image > 30).sum() > 400


@pytest.mark.parametrize("level", [255, 235, 180, 60, 0])
def test_any_plain_background_becomes_black(level):
    image = np.full((300, 400), level, np.uint8)
    image[50:250, 120:280] = 255 if level < 128 else 0
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    form = to_uint8(Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8)))[0, 0]
    assert form[:, :2].max() < 16
    assert form[1:-1, 14].min() > 200  # the margin is cut off


def test_most_of_a_shadow_is_taken_away():
    shade = np.linspace(250, 190, 400)[None] * np.linspace(1, 0.95, 300)[:, None]
    image = np.tile(shade, 1)
    image[50:250, 120:280] = 10
    form = to_uint8(Image.fromarray(image.astype(np.uint8)))[0, 0]
    assert form[:, :2].max() < 16
    assert form[1:-1, 14].min() > 200


def page_with(thing_level, page):
    """A T on a page of 300 x 400."""
    image = np.array(page, dtype=np.float64)
    for part in (np.s_[50:110, 100:300], np.s_[50:250, 170:230]):
        image[part] = thing_level
    return Image.fromarray(image.round().astype(np.uint8))


def test_strong_light_from_one_side_is_taken_away():
    plain = page_with(10, np.full((300, 400), 250))
    near(page_with(10, np.tile(np.linspace(250, 110, 400), (300, 1))), plain, tolerance=6)


def test_a_thing_over_a_corner_is_no_light():
    image = np.full((300, 400), 250, np.uint8)
    image[:200, :200] = 100
    form = to_uint8(Image.fromarray(image))[0, 0]
    assert form[7:20, 2:26].float().std() < 3  # all of the thing has one level


def test_a_pale_thing_is_stretched_and_a_dark_one_is_not():
    page = np.full((300, 400), 255)
    assert abs(int(to_uint8(page_with(225, page))[0, 0, 3, 14]) - 180) <= 5
    assert abs(int(to_uint8(page_with(140, page))[0, 0, 3, 14]) - 115) <= 5


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 2), (27, 29), (3000, 40), (999, 1001)])
def test_any_size(size):
    for level in (0, 255):
        image = Image.new("RGB", size, (level,) * 3)
        image.paste((255 - level,) * 3, (0, 0, -(-size[0] // 2), -(-size[1] // 2)))
        if size == (1, 1):
            with pytest.raises(UserError, match="it is empty"):
                to_uint8(image)
        else:
            assert to_uint8(image).shape == (1, 1, 28, 28)


def test_numbers_without_a_range_fill_it_and_nan_is_refused(pictures):
    values = np.asarray(shop()).astype(np.float32)
    for scaled in (values / 255, values * 1000):
        near(Image.fromarray(scaled), shop())
    values[3, 3] = np.nan
    with pytest.raises(UserError, match="NaN or Inf"):
        to_uint8(Image.fromarray(values))


def test_of_many_frames_the_first_counts(pictures):
    frames = [Image.new("RGB", shop().size, "red") for _ in range(3)]
    for suffix in ("gif", "webp", "png", "tiff"):
        shop().convert("RGB").save(pictures / f"a.{suffix}", save_all=True, append_images=frames)
        assert near(pictures / f"a.{suffix}", shop(), tolerance=8), suffix


def test_the_classes_of_real_things_are_found(tmp_path, pictures, fashion_mnist_dir):
    """The test images as a shop would show them: large, dark on white, in colour, with a margin, as JPEG."""
    images, labels = FashionMNISTDataModule().images("test")
    for i in range(64):
        large = Image.fromarray(255 - images[i, 0].numpy()).resize((320, 320), Image.Resampling.BICUBIC)
        page = Image.new("RGB", (500, 420), "white")
        page.paste(large.convert("RGB"), (90, 50))
        page.save(pictures / f"{i:02}.jpg")
    launched = predict(tmp_path, pictures, "--top_k", "1")
    assert launched.code == 0, launched.err
    names = [picture["top"][0]["class"] for picture in answers(tmp_path)["pictures"]]
    right = sum(name == FashionMNISTDataModule.class_names[y] for name, y in zip(names, labels, strict=False))
    assert right >= 55


# The command.


def test_table_csv_and_json_say_the_same_as_python(tmp_path, pictures):
    for name in ("b.png", "a.png", "sub/c.png"):
        (pictures / name).parent.mkdir(exist_ok=True)
        shop(width=40 + len(name)).save(pictures / name)
    launched = predict(tmp_path, pictures, "--top_k", "2")
    assert launched.code == 0, launched.err
    assert launched.err == ""
    with (tmp_path / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["a.png", "b.png", "sub/c.png"]
    assert list(rows[0]) == ["file", "class_1", "probability_1", "class_2", "probability_2"]
    said = load_classifier(REFERENCE).predict([pictures / row["file"] for row in rows])
    content = answers(tmp_path)
    for row, picture, name, p in zip(rows, content["pictures"], said.names, said.probabilities, strict=True):
        assert row["class_1"] == picture["top"][0]["class"] == name
        assert f"{100 * float(p.max()):5.1f} %" in launched.out
        assert abs(picture["top"][0]["probability"] - float(p.max())) < 1e-5
    assert content["options"]["ckpt_path"].endswith("best.ckpt")
    assert (content["options"]["top_k"], content["options"]["model.tta"]) == (2, "none")


def test_one_file_three_channels_two_views_and_no_data_set(tmp_path, pictures, monkeypatch):
    assert fit(tmp_path, "--model.in_channels", "3", "--model.tta", "flip").code == 0
    shop().save(pictures / "shoe.png")
    monkeypatch.setenv("VGG_LIGHTNING_DATA", str(tmp_path / "nowhere"))
    run = tmp_path / "lightning_logs/vgg11/version_0"
    run = next(tmp_path.rglob("version_0")) if not run.is_dir() else run
    launched = predict(tmp_path, pictures / "shoe.png", "--output", "new/place", run=run)
    assert launched.code == 0, launched.err
    said = load_classifier(run).predict(pictures / "shoe.png")
    top = answers(tmp_path / "new/place")["pictures"][0]["top"]
    assert (top[0]["class"], len(top)) == (said.names[0], 3)
    assert not (tmp_path / "nowhere").exists()


def test_a_long_list_is_shortened_on_the_screen_only(tmp_path, pictures):
    for i in range(70):
        shop().save(pictures / f"{i}.png")
    launched = predict(tmp_path, pictures)
    assert "... and 50 more in predictions.csv" in launched.out
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 71


def test_columns_are_aligned_whatever_the_names(tmp_path, pictures):
    for name in ("a.png", "日本語.png", "e\u0301.png", "x" * 90 + ".png"):
        shop().save(pictures / name)
    lines = [line for line in predict(tmp_path, pictures).out.splitlines() if line.count("%") == 3]
    assert len(lines) == 4
    assert len({columns(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.predict_path", "nowhere"], "--data.predict_path nowhere No such file"),
        (["--data.predict_path", "empty"], "empty holds no image"),
        (["--data.predict_path", "texts"], "texts holds no image (1 other files)"),
        (["--data.predict_path", "a\0b"], "--data.predict_path null"),
        (["--data.predict_path", "x" * 5000], "--data.predict_path too long"),
        (["--top_k", "0"], "--top_k 0 1 to 10"),
        (["--top_k", "11"], "--top_k 11 1 to 10"),
        (["--output", "texts/a.txt"], "cannot write --output"),
        (["--output", "/proc/new"], "cannot write --output"),
        (["--trainer.devices", "2"], "--trainer.devices one process"),
    ],
)
def test_mistakes_get_one_line_before_the_work(tmp_path, pictures, options, words, monkeypatch):
    monkeypatch.setattr(_PredictionLoop, "run", lambda loop: pytest.fail("it has begun"))
    shop().save(pictures / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("text")
    launched = predict(tmp_path, pictures, *options)
    assert launched.code == 2
    for word in words.split():
        assert word in one_line(launched)
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "empty", "texts"}


def test_options_that_need_own_pictures_or_predict(tmp_path):
    for arguments in (["predict", "--top_k", "2"], ["test", "--data.predict_path", "x"]):
        launched = launch([*arguments, "--ckpt_path", str(REFERENCE)], tmp_path)
        assert launched.code == 2
        assert "--data.predict_path" in one_line(launched)


# What may not be read.


def png(width, height, *chunks):
    """A PNG file of any size, with a few bytes of content."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(*c) for c in chunks) + chunk(b"IEND", b"")


def gif(width, height):
    return (
        b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0," + struct.pack("<4HB", 0, 0, width, height, 0) + b"\2"
    )


def make_traps(folder, outside):
    """Fill a folder with what no program should read, and return name -> word of the reason."""
    buffer = io.BytesIO()
    shop().save(buffer, "PNG")
    whole = buffer.getvalue()
    tiff = io.BytesIO()
    shop().save(tiff, "TIFF", compression="tiff_lzw")
    files = {
        "bomb.png": png(60_000, 60_000, (b"IDAT", zlib.compress(b"\0" * 100_000))),
        "bomb.gif": gif(65_000, 65_000),
        "nothing.png": png(0, 0),
        "chunk.png": png(9, 9, (b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 50_000_000)), (b"IDAT", b"")),
        "cut.png": whole[: len(whole) // 2],
        "text.jpg": b"this is no image",
        "page.png": b"<html><body>404</body></html>",
        "empty.webp": b"",
        "figure.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "packed.tiff": tiff.getvalue(),
        "new.heic": b"\0\0\0\x18ftypheic",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with (folder / "huge.png").open("wb") as stream:
        stream.truncate(decode.MOST_BYTES + 1)
    os.mkfifo(folder / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "s.png"))
    (folder / "folder.png").mkdir()
    (outside / "secret.png").write_bytes(whole)
    for name, target in {
        "zero.png": "/dev/zero", "out.png": outside / "secret.png", "dir.png": outside, "self.png": "self.png",
        "gone.png": "nowhere", "proc.png": "/proc/self/environ", "up": outside,
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    (folder / "inside.png").symlink_to("good.png")
    links = dict.fromkeys(("zero.png", "out.png", "dir.png", "self.png", "gone.png", "proc.png", "up"), "leads out")
    kinds = {"pipe.png": "a pipe", "s.png": "a socket", "folder.png": "a folder", "huge.png": "bytes"}
    reasons = {"bomb.png": "pixels", "bomb.gif": "pixels", "empty.webp": "empty"}
    return server, {**dict.fromkeys(files, ""), **links, **kinds, **reasons}


def test_traps_are_named_with_a_reason_and_the_rest_goes_on(tmp_path, pictures, capfd):
    (tmp_path / "outside").mkdir()
    server, traps = make_traps(pictures, tmp_path / "outside")
    shop().save(pictures / "good.png")
    shop().save(pictures / ".hidden.png")
    (pictures / "notes.txt").write_text("text")
    with server:
        launched = predict(tmp_path, pictures)
    assert launched.code == 4, launched.err
    assert "Traceback" not in launched.err
    assert capfd.readouterr().err == ""
    content = answers(tmp_path)
    assert [picture["file"] for picture in content["pictures"]] == ["good.png", "inside.png"]
    assert {entry["file"] for entry in content["not_read"]} == set(traps)
    for entry in content["not_read"]:
        assert entry["reason"]
        assert traps[entry["file"]] in entry["reason"]
    assert f"{len(traps)} of {len(traps) + 2} images were not read" in launched.err
    assert content["passed_over"] == {"hidden": 1, "no image": 1}


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self/environ", "/proc/kmsg", "pipe"])
def test_an_endless_file_by_its_own_name(tmp_path, path):
    os.mkfifo(tmp_path / "pipe")
    launched = predict(tmp_path, path)
    assert launched.code == 4
    assert "not read" in launched.err
    assert answers(tmp_path)["pictures"] == []


def test_a_file_that_grows_is_refused(pictures, monkeypatch):
    shop().save(pictures / "a.png")
    real = os.fstat

    def smaller(descriptor):
        values = list(real(descriptor))
        values[6] -= 1
        return os.stat_result(values)

    monkeypatch.setattr(decode.os, "fstat", smaller)
    with pytest.raises(UserError, match="changes while it is read"):
        to_uint8(pictures / "a.png")


def test_names_write_no_codes_to_the_terminal_and_no_formulas_into_a_table(tmp_path, pictures):
    names = ["\x1b[31mred\x1b]0;title\x07.png", "two\nlines.png", "turn\u202egnp.png", "=1+1,2.png", "-a.png", "+b.png"]
    for name in [*names, "@c.png", "plain.png"]:
        shop().save(pictures / name)
    (pictures / "bad\x1b[2J.png").write_bytes(b"no")
    shop().save(os.fsencode(pictures) + b"/latin\xff.png", "PNG")
    launched = predict(tmp_path, pictures)
    assert launched.code == 4
    for text in (launched.out, launched.err, (tmp_path / "predictions.csv").read_text()):
        assert all(c == "\n" or c.isprintable() for c in text)
    with (tmp_path / "predictions.csv").open() as stream:
        listed = [row["file"] for row in csv.DictReader(stream)]
    assert {"./=1+1,2.png", "./-a.png", "./+b.png", "./@c.png", "plain.png"} <= set(listed)
    assert not any(name[0] in "=+-@" for name in listed)
    exact = {picture["file"] for picture in answers(tmp_path)["pictures"]}
    assert set(names) <= exact
    assert os.fsdecode(b"latin\xff.png") in exact


def test_broken_pictures_are_read_or_refused_and_nothing_else(tmp_path, pictures, capfd):
    """Cut off, and with flipped bits, at places that the seed gives."""
    chance = random.Random(0)
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff"):
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "tiff": "TIFF"}.get(suffix, suffix.upper())
        shop().convert("RGB").save(buffer, kind)
        whole = buffer.getvalue()
        for i in range(40):
            broken = bytearray(whole[: chance.randrange(1, len(whole))] if i % 2 else whole)
            for _ in range(0 if i % 2 else chance.randrange(1, 8)):
                place = chance.randrange(min(len(broken), 400 if i % 4 else len(broken)))
                broken[place] ^= 1 << chance.randrange(8)
            (pictures / f"{i:02}.{suffix}").write_bytes(broken)
    launched = predict(tmp_path, pictures)
    assert launched.code == 4, launched.err
    assert "Traceback" not in launched.err
    assert capfd.readouterr().err == ""  # nor do the decoders print anything of their own
    content = answers(tmp_path)
    assert len(content["pictures"]) + len(content["not_read"]) == 240
    assert all(entry["reason"] for entry in content["not_read"])
