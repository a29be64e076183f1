"""An exported ONNX model in a Python that has numpy, Pillow and onnxruntime alone predicts what `predict` does."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent.parent / "reliability"))
from small import launch, one_line

from vgg_lightning import load_classifier
from vgg_lightning.data.images import prepare_image
from vgg_lightning.export.command import export

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "lightning_logs/reference/version_0"
FOREIGN = (
    "torch",
    "torchvision",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
    "torchmetrics",
    "vgg_lightning",
)
COLOURS = ("white", "black", "grey", "navy", "beige")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file, beside = export(REFERENCE, "onnx", tmp_path_factory.mktemp("alone") / "vgg.onnx")
    assert beside.name == "prepare_image.py"
    return file


def draw(kind, number):
    """Return a colour image of a thing on a plain background, of a size of its own."""
    random = np.random.default_rng((kind, number))
    width, height = (int(n) for n in random.integers(30, 400, 2))
    image = Image.new("RGB", (width, height), COLOURS[number % len(COLOURS)])
    left, top = (int(n) for n in (random.uniform(0, 0.3, 2) * (width, height)))
    right, bottom = (int(n) for n in (random.uniform(0.6, 1, 2) * (width, height)))
    pen, colour = ImageDraw.Draw(image), tuple(int(n) for n in random.integers(0, 256, 3))
    grey = [Image.new("RGB", (1, 1), c).convert("L").getpixel((0, 0)) for c in (colour, COLOURS[number % len(COLOURS)])]
    if abs(grey[0] - grey[1]) < 40:
        colour = "white" if grey[1] < 128 else "black"
    box, middle = (left, top, right, bottom), (left + right) // 2
    if kind == 0:
        pen.ellipse(box, fill=colour)
    elif kind == 1:
        pen.rectangle(box, fill=colour)
    elif kind == 2:
        pen.polygon([(left, bottom), (right, bottom), (middle, top)], fill=colour)
    else:
        pen.rectangle((left, top, middle, bottom), fill=colour)
        pen.rectangle((left, bottom - 8, right, bottom), fill=colour)
    return image


def alone(folder, program):
    """Run a program where nothing of ours, nor torch, can be imported, and return what it prints."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({FOREIGN}))\n{program}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.')\n{code}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def program_of_the_page():
    text = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    return next(
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "onnx" in block
    )


def same_as_predict(model, files):
    """Run the program of docs/export.md and hold it against `predict`."""
    printed = alone(model.parent, f"{program_of_the_page()}\nnp.save('found.npy', probabilities)")
    expected = load_classifier(REFERENCE).predict([str(file) for file in files])
    lines = [f"{f.name} {name}" for f, name in zip(files, expected.names, strict=True)]
    assert [line.rpartition(" ")[0] for line in printed.splitlines()] == lines
    np.testing.assert_allclose(np.load(model.parent / "found.npy"), expected.probabilities, atol=1e-4)


@pytest.fixture
def folder(model):
    folder = model.parent / "my_pictures"
    folder.mkdir(exist_ok=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()


def test_240_of_240_colour_images_are_predicted_alike(model, folder):
    for kind in range(4):
        for number in range(60):
            draw(kind, number).save(folder / f"{kind}-{number:02}.png")
    files = sorted(folder.iterdir())
    assert len(files) == 240
    same_as_predict(model, files)


def test_images_of_fashion_mnist_are_predicted_alike(model, folder, fashion_mnist_dir):
    from vgg_lightning import FashionMNISTDataModule

    images = FashionMNISTDataModule().images("test")[0][:240, 0].numpy()
    for i, pixels in enumerate(images):
        Image.fromarray(pixels if i % 2 else 255 - pixels).save(folder / f"{i:03}.png")
    same_as_predict(model, sorted(folder.iterdir()))


def test_what_predict_refuses_the_file_refuses_with_the_same_words(model, folder):
    Image.new("RGB", (40, 30), "white").save(folder / "empty.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    Image.new("L", (40, 30)).save(folder / "packed.tif", compression="tiff_lzw")
    for file in sorted(folder.iterdir()):
        said = alone(
            folder.parent,
            f"from prepare_image import prepare\ntry:\n    prepare('my_pictures/{file.name}')"
            "\nexcept (ValueError, OSError) as error:\n    print(error)",
        ).strip()
        with pytest.raises(ValueError, match=re.escape(said)) as refused:
            load_classifier(REFERENCE).predict(str(file))
        assert said == refused.value.reason


def test_what_is_guessed_of_an_image_is_a_warning(tmp_path):
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "12.png")
    with pytest.warns(prepare_image.ImageNote, match="is read as one of 12"):
        prepare_image.prepare(tmp_path / "12.png")


def test_the_file_imports_numpy_and_pillow_alone():
    tree = ast.parse(Path(prepare_image.__file__).read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) == {"numpy", "PIL"}


def test_another_file_of_that_name_is_kept(model):
    beside = model.with_name("prepare_image.py")
    before = beside.read_bytes()
    try:
        beside.write_text("mine = 1\n")
        args = ["export", str(REFERENCE), "--format", "onnx", "--output", "b.onnx"]
        launched = launch(args, model.parent)
        assert launched.code == 2
        assert "prepare_image.py, the file that prepares images, is another one there" in one_line(launched)
        assert beside.read_text() == "mine = 1\n"
        assert not (model.parent / "b.onnx").exists()
        assert launch([*args, "--overwrite"], model.parent).code == 0
        assert beside.read_bytes() == before
    finally:
        beside.write_bytes(before)
