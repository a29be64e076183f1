"""`vgg-lightning data`."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from vgg_lightning.base.errors import UserError
from vgg_lightning.cli.data import main

SHA256 = "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Be where a contact sheet may be written."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def test_it_says_where_the_data_is_and_that_it_is_sound(fashion_mnist_dir, capsys):
    assert main(["--data_dir", str(fashion_mnist_dir)]) == 0
    title, source, first, *others = capsys.readouterr().out.splitlines()
    assert title == f"Fashion-MNIST in {fashion_mnist_dir / 'FashionMNIST' / 'raw'}"
    assert source == "source: verified files in the data folder"
    assert first.split() == ["train-images-idx3-ubyte", "47,040,016", "bytes", "verified", "sha256", SHA256]
    assert len(others) == 3


def test_own_files_are_reported_as_such(tmp_path, capsys):
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 784))
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 4]))
    assert main([f"--data_dir={tmp_path}", "--dataset=idx"]) == 0
    out = capsys.readouterr().out
    assert "source: your own files in the data folder" in out
    assert out.count("structure checked") == 4
    rows = [line.split() for line in out.splitlines()[2:15]]
    assert [row for row in rows if row[0] in ("class", "2", "3", "4", "all")] == [
        ["class", "train", "test"],
        ["2", "0", "0"],
        ["3", "1", "1"],
        ["4", "1", "1"],
        ["all", "2", "2"],
    ]


def test_a_folder_shows_classes_counts_and_what_is_left_out(tmp_path, capsys):
    for name, count in (("cat", 10), ("hot \x1b[2J dog", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.linear_gradient("L").rotate(i * 11).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cat/.ipynb_checkpoints").mkdir()
    (tmp_path / "cat/notes.txt").write_text("x")
    assert main(["--data_dir", str(tmp_path), "--dataset", "folder"]) == 0
    out = capsys.readouterr().out
    assert [line.rsplit(maxsplit=2) for line in out.splitlines()[2:7] if not line.startswith("---")] == [
        ["class", "train", "test"],
        ["cat", "8", "2"],
        ["hot \\x1b[2J dog", "4", "1"],
        ["all", "12", "3"],
    ]
    assert "left out: 1 hidden or made by a system, 1 not called like images (.txt)\n" in out
    assert out.count("sha256") == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--datadir", "x"], "unknown option --datadir (did you mean --data_dir?)"),
        (["--data_dir"], "--data_dir: expected one argument"),
        (["--dataset", "fasion"], "dataset 'fasion' is unknown (did you mean fashion_mnist?)"),
        (
            ["--dataset", "idx", "--data_dir", "/nonexistent"],
            "train-images-idx3-ubyte is missing",
        ),
    ],
)
def test_bad_input_is_one_line(args, said):
    with pytest.raises(UserError) as refused:
        main(args)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--data_dir" in capsys.readouterr().out


def test_it_does_without_torch(tmp_path):
    """Loading torch takes seconds, and checking files needs none of it."""
    code = (
        "import sys; from vgg_lightning.cli.data import main\n"
        "for name in ('idx', 'folder'):\n"
        "    try: main(['--dataset', name, '--data_dir', sys.argv[1]])\n"
        "    except ValueError: print('torch' in sys.modules)"
    )
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            Image.linear_gradient("L").rotate(i * 11).save(tmp_path / name / f"{i}.png")
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("False\nThe data set folder in ")
    (tmp_path / "cat/0.png").unlink()
    (tmp_path / "cat/0.png").mkdir()
    result = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout == "False\nFalse\n"
