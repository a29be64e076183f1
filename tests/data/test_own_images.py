"""Own images from the first command on: what is chosen, said and printed, and the commands that come after."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from shapes import CLASSES, draw_shapes
from small import data_folder, launch, one_line

from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.text import program
from vgg_lightning.cli.defaults import with_defaults
from vgg_lightning.cli.lightning import VGGLightningCLI
from vgg_lightning.data.files import load
from vgg_lightning.data.images import dataset, decode
from vgg_lightning.data.sizes import Sizes
from vgg_lightning.data.splits import stratified_split
from vgg_lightning.data.statistics import mean_and_std
from vgg_lightning.export.command import FORMATS
from vgg_lightning.find.finder import ready
from vgg_lightning.prepare import complete, fit, prepare, size
from vgg_lightning.serve.command import hello

FIT = ["fit", "--data.dataset", "folder", "--data.data_dir", "my shapes", "--trainer.accelerator", "cpu"]
SMALL = ["--model.ratio", "32", "--show", "none"]


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    decode.tell.cache_clear()
    dataset._kept.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder in which somebody works: 240 colour images of four classes in `my shapes`."""
    folder = tmp_path_factory.mktemp("home")
    draw_shapes(folder / "my shapes")
    return folder


@pytest.fixture(scope="module")
def first(home):
    """The first try: no option but the data."""
    launched = launch([*FIT, "--show", "none"], home)
    assert launched.code == 0, launched.err
    return launched


@pytest.fixture
def run(home, first):
    return home / "lightning_logs/quick/version_0"


def next_commands(out):
    return [line.strip() for line in out.partition("\nnext:\n")[2].splitlines()]


def test_the_first_try_works(first, run):
    assert json.loads((run / "results.json").read_text())["test_acc"] >= 0.9
    said = "for 192 training images: --data.val_size 19, --data.batch_size 16, --trainer.max_epochs 37\n"
    assert first.out.count(said) == 1
    assert "colour, which is dropped: the network sees grey levels\n" in first.err
    assert first.err.count("reading the train images") == 1
    assert " at chance" not in first.out


def test_what_it_chose_is_in_its_config_and_stays_when_it_resumes(first, run, tmp_path):
    shutil.copytree(run.parents[2] / "my shapes", tmp_path / "my shapes")
    shutil.copytree(run, tmp_path / "lightning_logs/quick/version_0")
    draw_shapes(tmp_path / "my shapes", 200, seed=1)  # so that other sizes would follow from the number
    again = launch(["fit", "--resume", "--trainer.max_epochs", "38"], tmp_path)
    assert again.code == 0, again.err
    assert "training images: --" not in again.out
    assert "note: the data has changed since this run was saved (" in again.err
    assert "the data has changed" not in launch(["fit", "--resume", "--trainer.max_epochs", "39"], tmp_path).err
    for folder, epochs in ((run, 37), (tmp_path / "lightning_logs/quick/version_0", 39)):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert (config["data"]["val_size"], config["data"]["batch_size"]) == (19, 16)
        assert config["trainer"]["max_epochs"] == epochs


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.batch_size", "64"], "--data.val_size 19, --trainer.max_epochs 134"),
        (["--config", "quick"], "--data.val_size 19"),
        (["--data.val_size", "40", "--trainer.max_epochs", "3"], "--data.batch_size 8"),
        (["--trainer.max_steps", "110"], "--data.val_size 19, --data.batch_size 16, --trainer.max_epochs 10"),
        (["--config", "{model: {network: lenet}}", "--model.ratio", "1"], "--data.val_size 19, --data.batch_size 16, "),
    ],
)
def test_what_is_said_is_obeyed_and_the_rest_follows(home, options, said):
    launched = launch([*FIT, *SMALL, *options, "--trainer.fast_dev_run", "true"], home)
    assert launched.code == 0, launched.err
    assert f"for 192 training images: {said}" in launched.out


def test_everything_said_leaves_nothing_to_say(home):
    sizes = ["--data.val_size", "8", "--data.batch_size", "8", "--trainer.max_epochs", "1"]
    launched = launch([*FIT, *SMALL, *sizes, "--trainer.fast_dev_run", "true"], home)
    assert launched.code == 0, launched.err
    assert "training images:" not in launched.out


def test_python_gets_the_sizes_of_the_command_line(home, monkeypatch):
    monkeypatch.chdir(home)
    data = FashionMNISTDataModule(dataset="folder", data_dir="my shapes")
    assert len(data.images("val")[1]) == data.hparams["val_size"] == 19
    assert data.hparams["batch_size"] == 16
    idx = FashionMNISTDataModule(dataset="idx", data_dir=str(data_folder()))
    idx.images("test")
    assert (idx.hparams["val_size"], idx.hparams["batch_size"]) == (51, 32)
    prepared = prepare({"ratio": 64, "head": "gap"}, {"dataset": "folder", "data_dir": "my shapes"}, record=False)
    assert prepared.trainer.max_epochs == 37
    given = FashionMNISTDataModule(dataset="folder", data_dir="my shapes")
    assert prepare(Classifier(ratio=64, head="gap", num_classes=4), given, record=False).data.hparams["val_size"] == 19


def test_the_help_shows_the_sizes_that_a_run_would_have(home):
    for line, sizes in (
        (["fit"], (128, 5000, 5)),
        (FIT, (16, 19, 37)),
        ([*FIT, "--data.batch_size=64"], (64, 19, 134)),
    ):
        out = launch([*line, "--help"], home).out
        for name, number in zip(("data.batch_size", "data.val_size", "trainer.max_epochs"), sizes, strict=True):
            assert f"  --{name} {number} " in out
    assert "  --data.val_size  " in launch(["fit", "--data.dataset", "folder", "--help"], home).out


def test_the_known_data_sets_keep_their_sizes():
    data = FashionMNISTDataModule()
    assert (data.hparams["val_size"], data.hparams["batch_size"]) == (5000, 128)
    options = {"trainer": {}, "model": {}, "data": {}, "seed_everything": 0, "show": "none", "logger": None}
    complete("fit", options)
    size("fit", options, {})
    assert (options["data"]["val_size"], options["data"]["batch_size"]) == (5000, 128)
    assert options["trainer"]["max_epochs"] == 10


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([6000] * 10, (5000, 128, 5)),
        ([48] * 4, (19, 16, 37)),
        ([1000, 1000], (200, 128, 27)),
        ([4, 4], (2, 8, 400)),
        ([100, 10], (11, 8, 31)),
        ([1, 1], (0, 8, 400)),
    ],
)
def test_sizes_follow_the_number_of_images(counts, sizes):
    assert Sizes.of(counts) == sizes
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    held_out = labels[stratified_split(labels, sizes[0])[1]].bincount(minlength=len(counts))
    assert (held_out > 0).all() or not sizes[0]


def test_a_class_that_is_all_held_out_is_named(tmp_path, capsys):
    draw_shapes(tmp_path / "train", 1, ("circle",))
    draw_shapes(tmp_path / "train", 30, ("star",))
    draw_shapes(tmp_path / "test", 2, ("circle", "star"), seed=1)
    FashionMNISTDataModule(dataset="folder", data_dir=str(tmp_path)).images("train")
    note = "note: all training images of circle are held out for validation: add images, or lower val_size 7\n"
    assert note in capsys.readouterr().err


def test_the_run_finds_its_data_again(run, tmp_path):
    """From the folder where it was made, and from elsewhere."""
    for cwd in (run.parents[2], tmp_path):
        for subcommand, said in (
            ("test", "on 48 held-out images of "),
            ("validate", "on 19 validation images\n"),
            ("predict", "of 48 test images right"),
        ):
            launched = launch([subcommand, "--ckpt_path", os.path.relpath(run, cwd)], cwd)
            assert launched.code == 0, launched.err
            assert said in launched.out
    (found,) = [line for line in launched.out.splitlines() if line.startswith("predictions: ")]
    with open(cwd / found.removeprefix("predictions: ")) as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == set(CLASSES)


def test_python_finds_its_data_again(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tested = prepare(stage="test", ckpt_path=run, trainer={"accelerator": "cpu"})
    assert tested.data.data_dir.samefile(run.parents[2] / "my shapes")
    assert tested.data.preprocess.mean == load_classifier(run).preprocess.mean


def test_its_data_may_be_elsewhere_or_gone(first, run, tmp_path):
    moved, gone = tmp_path / "moved", tmp_path / "lightning_logs/quick/version_0"
    shutil.copytree(run.parents[2] / "my shapes", moved)
    shutil.copytree(run, gone)
    for line in (["test", "--ckpt_path", str(gone)], ["fit", "--ckpt_path", str(gone), "--trainer.max_epochs", "38"]):
        said = one_line(launch(line, tmp_path))
        assert "cannot read the folder" in said
        assert "my shapes (No such file or directory): give --data.data_dir the folder of the images" in said
    launched = launch(["test", "--ckpt_path", str(gone), "--data.data_dir", "moved"], tmp_path)
    assert launched.code == 0, launched.err
    assert "on 48 held-out images of moved\n" in launched.out
    image = moved / "star/000.png"  # for which the data is not needed
    assert launch(["predict", "--ckpt_path", str(gone), "--data.predict_path", str(image)], tmp_path).code == 0


def test_own_idx_files_are_found_again_too(tmp_path):
    line = ["--data.dataset", "idx", "--data.data_dir", str(data_folder()), *SMALL, "--data.augment", "[]"]
    limits = [f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")]
    launched = launch(["fit", *line, *limits, "--trainer.max_epochs", "1"], tmp_path)
    assert launched.code == 0, launched.err
    assert "for 512 training images: --data.val_size 51, --data.batch_size 32\n" in launched.out
    assert f"on 32 of the 128 held-out images of {data_folder()}\n" in launched.out
    launched = launch(["test", "--ckpt_path", "lightning_logs/quick/version_0"], tmp_path)
    assert launched.code == 0, launched.err
    config = tmp_path / "lightning_logs/quick/version_0/config.yaml"
    config.write_text(config.read_text().replace(str(data_folder()), "/nowhere"))
    said = one_line(launch(["test", "--ckpt_path", "lightning_logs/quick/version_0"], tmp_path))
    assert "/nowhere/train-images-idx3-ubyte is missing" in said
    assert "give --data.data_dir their folder" in said


@pytest.fixture(scope="module")
def facts(home):
    """The statistics, names and sizes that the data itself has."""
    data = FashionMNISTDataModule(dataset="folder", data_dir=str(home / "my shapes"))
    images, labels = load(home / "my shapes", "train", "folder")
    mean, std = mean_and_std(images)
    sizes = Sizes.of(labels.bincount().tolist())
    return {"mean": mean, "std": std, "classes": list(data.class_names), **sizes._asdict()}


@pytest.mark.parametrize("door", ["command line", "a file of options", "the config of a run", "a finder", "Python"])
def test_every_door_into_training_has_the_facts_of_the_data(door, facts, home, run, monkeypatch, tmp_path):
    monkeypatch.chdir(home)
    line = [*FIT[1:], *SMALL]
    if door == "a file of options":
        (tmp_path / "mine.yaml").write_text(
            "data: {dataset: folder, data_dir: my shapes}\nmodel: {ratio: 32, head: gap}"
        )
        line = ["--config", str(tmp_path / "mine.yaml")]
    elif door == "the config of a run":
        line = ["--config", str(run / "config.yaml")]
    if door == "a finder":
        found = ready(line, str(tmp_path), 1)
    elif door == "Python":
        found = prepare({"ratio": 32, "head": "gap"}, {"dataset": "folder", "data_dir": "my shapes"}, record=False)
    else:
        found = prepare(**VGGLightningCLI("fit", with_defaults("fit", line)).arguments(), record=False)
    epochs = 37 if door == "a finder" else found.trainer.max_epochs  # it trains for as long as it needs
    assert {**{name: found.data.hparams.get(name) for name in facts}, "max_epochs": epochs} == facts
    assert found.model.hparams["num_classes"] == 4


@pytest.mark.parametrize("door", ["load_classifier", "load_from_checkpoint", "safetensors", "test"])
def test_every_door_out_of_a_run_has_the_facts_of_the_data(door, facts, run, tmp_path):
    if door == "test":
        found = prepare(stage="test", ckpt_path=run, trainer={"accelerator": "cpu"})
        classifier, has = found.data, dict(found.data.hparams)
        assert (has["val_size"], has["batch_size"]) == (facts["val_size"], facts["batch_size"])
    elif door == "safetensors":
        assert launch(["export", str(run)], tmp_path).code == 0
        classifier = load_classifier(tmp_path / "model.safetensors")
    elif door == "load_from_checkpoint":
        classifier = Classifier.load_from_checkpoint(run / "checkpoints/best.ckpt")
    else:
        classifier = load_classifier(run)
    assert list(classifier.class_names) == facts["classes"]
    assert (classifier.preprocess.mean, classifier.preprocess.std) == (facts["mean"], facts["std"])


def test_a_search_gives_all_trials_the_sizes_of_the_data(facts, home, monkeypatch):
    pytest.importorskip("optuna")
    from vgg_lightning.sweep.options import FitOptions

    monkeypatch.chdir(home)
    options = FitOptions(FIT[1:])
    trial = options.parse({"data.batch_size": 64})
    assert (trial.data.val_size, trial.data.batch_size, trial.trainer.max_epochs) == (19, 64, 37)
    assert options.plain({})["data"] == {
        **{name: facts[name] for name in ("val_size", "batch_size")},
        **{"dataset": "folder", "image_size": 32, "augment": ["flip"]},
    }


def test_int8_is_calibrated_on_the_images_of_the_run(run, tmp_path, monkeypatch):
    seen = []

    def write(model, file):
        seen.append(model.data().images("train")[0])
        file.touch()
        return [file]

    monkeypatch.setitem(FORMATS, "onnx-int8", FORMATS["onnx-int8"]._replace(packages=(), write=write))
    line = ["export", str(run), "--format", "onnx-int8", "--overwrite"]
    assert launch(line, tmp_path).code == 0
    moved = shutil.copytree(run.parents[2] / "my shapes", tmp_path / "moved")
    assert launch([*line, "--data.data_dir", str(moved)], tmp_path).code == 0
    assert torch.equal(*seen)
    said = one_line(launch([*line, "--data_dir", str(tmp_path / "gone")], tmp_path))
    assert f"cannot read the folder {tmp_path / 'gone'}" in said


def test_every_next_command_works_where_it_is_printed(first, home):
    commands = next_commands(first.out)
    subcommands = [shlex.split(command)[1] for command in commands]
    assert subcommands[:2] == ["--logdir", "predict"]
    events = home / shlex.split(commands[0])[2]
    assert list(events.rglob("events.*"))
    predicted = launch(shlex.split(commands[1])[1:], home)
    assert predicted.code == 0, predicted.err
    assert "notebook" not in first.out  # there is none
    for command in commands[2:]:
        assert load_classifier(home / shlex.split(command)[3]).class_names == list(CLASSES)


@pytest.mark.parametrize(
    ("logger", "folders"),
    [
        (False, []),
        (lambda: CSVLogger("csv"), []),
        (lambda: [CSVLogger("csv"), TensorBoardLogger("boards here", name="x")], ["'boards here/x'"]),
        (True, ["'some where/lightning_logs'"]),
    ],
)
def test_next_names_what_is_there(home, monkeypatch, capsys, logger, folders):
    monkeypatch.chdir(home)
    logger = logger() if callable(logger) else logger
    limits = {"limit_train_batches": 1, "limit_val_batches": 1, "max_epochs": 1, "accelerator": "cpu"}
    trainer = {**limits, "logger": logger, "default_root_dir": "some where"}
    model = {"ratio": 64, "head": "gap"}
    fit(prepare(model, {"dataset": "folder", "data_dir": "my shapes"}, trainer=trainer, show="none", test=False))
    commands = next_commands(capsys.readouterr().out)
    boards = [command.partition(" --logdir ")[2] for command in commands if "--logdir" in command]
    assert boards == folders
    assert commands[len(boards)].endswith("'") or "version_" in commands[len(boards)]
    assert launch(shlex.split(commands[len(boards)])[1:], home).code == 0


def test_no_command_is_offered_for_checkpoints_that_are_not_there(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    off = {"logger": False, "enable_checkpointing": False, "limit_train_batches": 1, "max_epochs": 1}
    data = {"dataset": "folder", "data_dir": "my shapes"}
    fit(prepare({"ratio": 64, "head": "gap"}, data, trainer={**off, "accelerator": "cpu"}, test=False))
    assert "next:" not in capsys.readouterr().out


def test_a_program_without_a_script_is_a_module(monkeypatch, tmp_path):
    python = tmp_path / "bin here/python3"
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    assert program("vgg-lightning") == f"'{python}' -m vgg_lightning"
    python.parent.mkdir()
    (python.parent / "vgg-lightning").touch(0o755)
    assert program("vgg-lightning") == f"'{python.parent}/vgg-lightning'"
    monkeypatch.setenv("PATH", str(python.parent))
    assert program("vgg-lightning") == "vgg-lightning"


def test_a_part_is_called_a_part_everywhere(home):
    limits = ["--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--trainer.max_epochs", "1"]
    launched = launch([*FIT, *SMALL, *limits, "--name", "part"], home)
    assert launched.code == 0, launched.err
    tested, validated = "16 of the 48 held-out images of my shapes", "16 of the 19 validation images"
    assert f"\non {tested}:\nclass " in launched.out
    assert f" % on {tested}\n" in launched.out
    assert f" % on {validated}\n" in launched.out
    run = home / "lightning_logs/part/version_0"
    results = json.loads((run / "results.json").read_text())
    assert (results["tested_on"], results["validated_on"]) == (tested, validated)
    assert launch(["export", str(run), "--output", "part.safetensors"], home).code == 0
    card = json.loads((home / "part.json").read_text())
    assert (card["measured"]["tested_on"], card["measured"]["validated_on"]) == (tested, validated)
    predicted = launch(["predict", "--ckpt_path", str(run), "--trainer.limit_predict_batches", "1"], home)
    assert predicted.out.splitlines()[1].endswith(f": {tested}")


def test_the_official_test_images_are_all_of_a_known_data_set(tiny, root):
    shutil.copytree(tiny.raw, root / "FashionMNIST/raw")
    data = FashionMNISTDataModule(data_dir=str(root), batch_size=8, val_size=10)
    data.images("test"), data.images("val")
    assert data.part("test", 3).text == "the official test images"
    assert data.part("test", 2).text == "16 of the 20 official test images"
    assert data.part("val", 1).text == "8 of the 10 validation images"


def test_a_part_of_the_data_to_overfit_has_all_classes(home, monkeypatch):
    monkeypatch.chdir(home)
    data = FashionMNISTDataModule(dataset="folder", data_dir="my shapes", batch_size=8, val_size=0)
    trainer = {"overfit_batches": 1, "max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
    ready = prepare(Classifier(ratio=64, head="gap", num_classes=4), data, trainer=trainer, record=False)
    fit(ready)
    assert sorted(next(iter(data.train_dataloader())).labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_page_names_what_its_network_knows(run):
    assert "one piece of clothing" in hello(FashionMNISTDataModule.class_names)
    text = hello(load_classifier(run).class_names)
    assert "clothing" not in text
    assert "It knows 4 classes: circle, square, star, triangle." in text
    assert r"\<img src\=x\>" in hello(["<img src=x>", "b"])


def test_channels_of_grey_images_are_said_to_be_copies(home):
    line = [*FIT, *SMALL, "--model.in_channels", "3", "--trainer.fast_dev_run", "true"]
    launched = launch(line, home)
    assert launched.code == 0, launched.err
    assert "note: --model.in_channels 3: the images are grey, each channel repeats them\n" in launched.err


@pytest.mark.parametrize(("mode", "coloured"), [("L", False), ("RGB", False), ("RGBA", True), ("P", True)])
def test_colour_is_in_what_is_seen_and_not_in_the_form_of_the_file(tmp_path, mode, coloured):
    file = tmp_path / "a.png"
    image = Image.new("RGB", (40, 50), "white")
    image.paste((200, 30, 30) if coloured else (90, 90, 90), (10, 10, 30, 40))
    image.convert(mode).save(file)
    look = dataset.look_at(file)
    assert (look.colour, look.size, look.shows) == (coloured, (40, 50), True)


def test_a_run_too_short_to_learn_is_told_so_before_it_begins(home):
    launched = launch([*FIT, *SMALL, "--data.batch_size", "128", "--trainer.max_epochs", "2"], home)
    assert launched.code == 0, launched.err
    before, _, after = launched.out.partition("epoch 1/2")
    assert "note: this run has 4 steps in all, which is few" in before
    assert "lower --data.batch_size or raise --trainer.max_epochs" in before
    (note,) = [line for line in after.splitlines() if line.startswith("note: after 4 steps ")]
    assert "what helps: more steps (a smaller --data.batch_size or a larger --trainer.max_epochs), or --model" in note


def test_one_answer_for_all_images_is_named(home):
    line = [*FIT, *SMALL, "--model.lr", "1e-9", "--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1"]
    launched = launch(line, home)
    assert launched.code == 0, launched.err
    (note,) = [line for line in launched.out.splitlines() if "for every validation image; what helps: " in line]
    assert any(f"the network predicts '{name}' for" in note for name in CLASSES)


def test_the_data_is_shown_before_it_is_trained_on(home):
    shutil.copytree(home / "my shapes", home / "with more")
    (home / "with more/star/notes.txt").write_text("x")
    launched = launch(["data", "--data.dataset", "folder", "--data.data_dir", "with more", "--output", "a.png"], home)
    assert launched.code == 0, launched.err
    lines = launched.out.splitlines()
    assert "star         48    12" in lines
    assert any(line.startswith("sizes: 40 to 120 pixels wide, ") for line in lines)
    assert "left out: 1 not called like images (.txt)" in lines
    assert lines[-1] == "contact sheet: a.png, what the network will see of 10 training images a class"
    sheet = np.asarray(Image.open(home / "a.png"))
    seen = FashionMNISTDataModule(dataset="folder", data_dir=str(home / "with more")).images("train")[0]
    first = torch.from_numpy(sheet[2:58:2, 150:206:2].copy())  # the row of the circles begins here
    assert any(torch.equal(first, image) for image in seen[:, 0])
    assert launch(["data", "--dataset", "folder", "--data_dir", "with more"], home).code == 0
    assert (home / "contact_sheet.png").is_file()
    said = one_line(launch(["data", "--output", "a.png"], home))
    assert "--output is for a contact sheet of your own data" in said
