"""A checkpoint is opened once, whichever door it comes through; every door gives what the others give."""

import hashlib
from collections import Counter

import pytest
import torch
from PIL import Image
from small import data_options, fit, launch, one_line

import vgg_lightning.classifier
import vgg_lightning.networks
from vgg_lightning import Classifier, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.run.checkpoints import read, seal
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.checkpoints.locate import meant_by, newest_of
from vgg_lightning.serve import command as serve

DATA = data_options()[2:4]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened")
    assert fit(folder, "--name", "a", "--data.normalize", "false").code == 0
    return folder


@pytest.fixture
def run(folder):
    return folder / "lightning_logs" / "a" / "version_0"


@pytest.fixture
def counted(monkeypatch):
    """What is done in a test: files hashed, files unpickled, networks built."""
    counts = Counter()
    verify, load, build = seal.verify, torch.load, vgg_lightning.networks.build_network

    def counting_verify(file):
        counts["hash", file.name] += 1
        return verify(file)

    def counting_load(file, *args, **kwargs):
        counts["unpickle", getattr(file, "name", "stream")] += 1
        return load(file, *args, **kwargs)

    def counting_build(*args, **kwargs):
        counts["skeleton" if torch.get_default_device().type == "meta" else "network"] += 1
        return build(*args, **kwargs)

    for module in (seal, read):
        monkeypatch.setattr(module, "verify", counting_verify)
    monkeypatch.setattr(torch, "load", counting_load)
    for module in (vgg_lightning.networks, vgg_lightning.classifier):
        monkeypatch.setattr(module, "build_network", counting_build)
    vgg_lightning.networks._skeletons.clear()
    return counts


def resumed(run, where):
    more = ("--name", "a", "--resume", "--trainer.max_epochs", "2", "--test", "false")
    assert launch(["fit", *data_options(), *more], run.parents[2]).code == 0


def served(run, where, monkeypatch):
    monkeypatch.setattr(serve, "_serve", lambda *args: None)
    monkeypatch.setattr(serve, "application", lambda *args: None)
    assert serve.main(["--ckpt_path", str(run), "--port", "0"]) == 0


def subcommand(*options):
    def run_subcommand(run, where):
        launched = launch([options[0], "--ckpt_path", str(run), *DATA, *options[1:]], where)
        assert launched.code == 0, launched.err

    return run_subcommand


def predicted(run, where):
    Image.linear_gradient("L").save(where / "a.png")
    subcommand("predict", "--data.predict_path", str(where / "a.png"))(run, where)


def exported(run, where):
    assert launch(["export", str(run), "--output", str(where / "a.safetensors")], where).code == 0


@pytest.mark.parametrize(
    "door",
    [
        subcommand("validate"),
        subcommand("test"),
        subcommand("predict"),
        predicted,
        exported,
        lambda run, where: load_classifier(run),
        lambda run, where: Classifier.load_from_checkpoint(run / "checkpoints" / "best.ckpt"),
        resumed,
    ],
    ids=["validate", "test", "predict", "own images", "export", "load_classifier", "load_from_checkpoint", "resume"],
)
def test_a_door_reads_a_file_once_and_builds_one_network(door, run, tmp_path, counted):
    door(run, tmp_path)
    check(counted)


def test_serve_reads_a_file_once_and_builds_one_network(run, tmp_path, counted, monkeypatch):
    served(run, tmp_path, monkeypatch)
    check(counted)


def check(counted):
    hashed = {name: n for (what, name), n in pairs(counted) if what == "hash" and not name.startswith(".")}
    unpickled = {name: n for (what, name), n in pairs(counted) if what == "unpickle"}
    assert unpickled
    assert set(unpickled.values()) == {1}
    assert set(hashed.values()) == {1}
    assert counted["network"] == 1
    assert counted["skeleton"] <= 1


def pairs(counts):
    return [(key, n) for key, n in counts.items() if isinstance(key, tuple)]


def test_a_file_that_changes_in_a_launch_is_read_again(run, tmp_path, counted):
    file = tmp_path / "a.ckpt"
    file.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes())
    with read.one_launch():
        first = read.ReadFile(file, read.read_checkpoint(file))
        read.hand_on(first)
        assert read.handed_on(file) is first
        content = file.read_bytes()
        file.write_bytes(content[:-1] + (b"1" if content.endswith(b"0") else b"0"))
        assert read.handed_on(file) is None
        with pytest.raises(UserError, match="is damaged"):
            VerifiedCheckpointIO().load_checkpoint(file)


def test_the_trainer_is_handed_what_was_read_and_nobody_holds_it_afterwards(run):
    file = run / "checkpoints" / "best.ckpt"
    with read.one_launch():
        found = read.ReadFile(file, read.read_checkpoint(file))
        read.hand_on(found)
        assert VerifiedCheckpointIO().load_checkpoint(file) is found.checkpoint
        assert read.handed_on(file) is None
        assert VerifiedCheckpointIO().load_checkpoint(file) is not found.checkpoint
    read.hand_on(found)  # outside a launch nothing is kept
    assert read.handed_on(file) is None


def test_the_digest_of_a_sealed_file_comes_with_its_verification(run):
    file = run / "checkpoints" / "best.ckpt"
    damage, digest = seal.verify(file)
    assert damage is None
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_lightnings_own_door_gives_preprocessing_and_class_names(run):
    ours, theirs = load_classifier(run), Classifier.load_from_checkpoint(run / "checkpoints" / "best.ckpt")
    assert theirs.training
    assert theirs.preprocess.normalize is ours.preprocess.normalize is False
    assert list(theirs.class_names) == list(ours.class_names)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
    assert Classifier.load_from_checkpoint(run / "checkpoints" / "best.ckpt", lr=0.5).hparams["lr"] == 0.5


def test_lightnings_own_door_is_as_safe(run, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["_instantiator"] = "os.system"
    torch.save(checkpoint, tmp_path / "a.ckpt")
    for door in (load_classifier, Classifier.load_from_checkpoint):
        with pytest.raises(UserError, match="no option '_instantiator'"):
            door(tmp_path / "a.ckpt")
    with (tmp_path / "a.ckpt").open("rb") as stream, pytest.raises(ValueError, match="instantiator"):
        Classifier.load_from_checkpoint(stream)  # Lightning's, which takes open files


def test_which_file_is_meant(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    last, best = (run / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    for path in ("last", str(run), str(run / "checkpoints"), str(best)):
        wanted = {"last": last, str(best): best, str(run / "checkpoints"): last}.get(path, last)
        assert meant_by(path, resumes=True).resolve() == wanted
        assert meant_by(path, resumes=False).resolve() == (last if path == "last" else best)
    assert newest_of(".", "a").resolve() == last
    assert newest_of(folder, "a") == last
    assert "no valid checkpoint" in one_line(launch(["fit", "--resume", "--name", "none"], folder))
