"""Files from elsewhere: nothing that they name is imported or run, and nothing absurd is built from them."""

import hashlib
import http.server
import json
import os
import pickle
import shutil
import sys
import threading
import time
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small import data_options, fit, launch, one_line

from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.loading.load import data_options as saved_data_options
from vgg_lightning.loading.load import model_options, read_checkpoint
from vgg_lightning.loading.opened import checked_options

CANARY = """
import pathlib
pathlib.Path({mark!r}).write_text("run")
class Evil:
    def __init__(self, *args, **kwargs):
        pathlib.Path({mark!r}).write_text("run")
def evil(*args, **kwargs):
    pathlib.Path({mark!r}).write_text("run")
"""


class Gadget:
    """Unpickled, it writes the mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of the small network."""
    folder = tmp_path_factory.mktemp("untrusted")
    assert fit(folder).code == 0
    return next(folder.rglob("version_0"))


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported or called; it may never."""
    mark = tmp_path / "mark"
    (tmp_path / "canary_module.py").write_text(CANARY.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    assert "canary_module" not in sys.modules
    assert not mark.exists()


def good(run):
    return torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)


def doors(file, where):
    """Open a file by every door; return what each said."""
    said = []
    try:
        load_classifier(file)
    except UserError as error:
        said.append(str(error))
    for subcommand in ("fit", "validate", "test", "predict"):
        said.append(launch([subcommand, "--ckpt_path", str(file), *data_options()[2:4]], where))
    said.append(fit(where, "--model.weights", str(file)))
    return said


def refused_everywhere(file, where):
    with pytest.raises(UserError):
        Classifier.load_from_checkpoint(file)
    said = doors(file, where)
    assert len(said) == 6, "load_classifier opened it"
    for launched in said[1:]:
        assert launched.code == 2, launched
        assert "weights_only=False" not in one_line(launched)


def hostile(mark):
    """Return changes of a good checkpoint, each of which tries to run something or to take all memory."""
    return {
        "instantiator": lambda c: c["hyper_parameters"].update(_instantiator="canary_module.evil"),
        "class_path": lambda c: c["hyper_parameters"].update(_class_path="canary_module.Evil"),
        "name": lambda c: c.update(hparams_name="kwargs", hyper_parameters={"class_path": "canary_module.Evil"}),
        "nested": lambda c: c["hyper_parameters"].update(init={"class_path": "canary_module.Evil", "init_args": {}}),
        "gadget": lambda c: c.update(extra=Gadget(mark)),
        "gadget in options": lambda c: c["hyper_parameters"].update(lr=Gadget(mark)),
        "gadget in weights": lambda c: c["state_dict"].update(x=Gadget(mark)),
        "data": lambda c: c["datamodule_hyper_parameters"].update(class_path="canary_module.Evil"),
        "data folder": lambda c: c["datamodule_hyper_parameters"].update(data_dir=str(mark)),
        "weights": lambda c: c["hyper_parameters"].update(weights="http://127.0.0.1:9/x.ckpt"),
        "wide": lambda c: c["hyper_parameters"].update(hidden_units=10**9, head="classic"),
        "many classes": lambda c: c["hyper_parameters"].update(num_classes=10**12),
        "endless": lambda c: c["hyper_parameters"].update(num_classes=10**40),
        "huge images": lambda c: (
            c["hyper_parameters"].update(image_size=10**7),
            c["datamodule_hyper_parameters"].update(image_size=10**7),
        ),
        "text for a number": lambda c: c["hyper_parameters"].update(ratio="64"),
        "list for a number": lambda c: c["hyper_parameters"].update(lr=[0.1]),
        "truth for a number": lambda c: c["hyper_parameters"].update(ratio=True),
        "not finite": lambda c: c["hyper_parameters"].update(lr=float("nan")),
        "tensor for a number": lambda c: c["hyper_parameters"].update(lr=torch.tensor(0.1)),
        "options no table": lambda c: c.update(hyper_parameters=["canary_module.Evil"]),
        "weights no table": lambda c: c.update(state_dict=[1, 2]),
        "weights no tensors": lambda c: c["state_dict"].update({next(iter(c["state_dict"])): 3}),
        "expanded": lambda c: c["state_dict"].update(
            {next(iter(c["state_dict"])): torch.zeros(1).expand(10**6, 10**6, 3, 3)}
        ),
        "all expanded": lambda c: c.update(state_dict={k: torch.zeros(1).expand(10**12) for k in c["state_dict"]}),
        "sparse": lambda c: c["state_dict"].update(
            {next(iter(c["state_dict"])): torch.sparse_coo_tensor(size=(10**6, 10**6))}
        ),
        "progress": lambda c: c["hyper_parameters"].update(lr="x") or c.update(global_step=["x"], loops=3),
        "no weights": lambda c: c.pop("state_dict"),
        "no options": lambda c: c.pop("hyper_parameters"),
    }


SOUND_WEIGHTS = ("expanded", "progress", "weights", "data folder", "data", "instantiator", "class_path", "not finite")


@pytest.mark.parametrize("kind", hostile("").keys())
def test_hostile_checkpoint(run, tmp_path, canary, kind):
    checkpoint = good(run)
    hostile(str(canary))[kind](checkpoint)
    file = tmp_path / "hostile.ckpt"
    torch.save(checkpoint, file)
    began = time.process_time()
    if (
        kind in ("expanded", "progress", "weights", "data folder", "data", "instantiator", "class_path", "not finite")
        or "for a" in kind
    ):
        with pytest.raises(UserError):  # --model.weights takes the weights alone, which are sound here
            load_classifier(file)
        for subcommand in ("fit", "validate", "test", "predict"):
            launched = launch([subcommand, "--ckpt_path", str(file), *data_options()[2:4]], tmp_path)
            assert launched.code == 2, launched
            one_line(launched)
    elif kind in ("name", "nested", "wide", "many classes", "endless", "huge images", "options no table"):
        with pytest.raises(UserError):
            load_classifier(file)
        for subcommand in ("fit", "validate", "test", "predict"):
            assert launch([subcommand, "--ckpt_path", str(file), *data_options()[2:4]], tmp_path).code == 2
    else:
        refused_everywhere(file, tmp_path)
    assert time.process_time() - began < 10
    assert not list(tmp_path.rglob("version_*"))


def archive(file, pickled, compressed=False, extra=b""):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as out:
        out.writestr("a/data.pkl", pickled)
        out.writestr("a/version", "3\n")
        out.writestr("a/byteorder", "little")
        if extra:
            out.writestr("a/data/0", extra)


# t = (1,), 40 times t = (t, t), and then {t: 1}, which asks for the hash of 2 ** 40 parts
TUPLES = b"\x80\x02}K\x01\x85q\x00" + b"".join(b"h%c\x86q%c" % (n, n + 1) for n in range(40)) + b"K\x01s."


def test_raw_pickles_and_bombs(run, tmp_path, canary):
    file = tmp_path / "hostile.ckpt"
    gadget = pickle.dumps(Gadget(str(canary)))
    bytes_bomb = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x40\x85R."  # bytearray(2 ** 46)
    writers = [
        lambda: file.write_bytes(gadget),
        lambda: archive(file, gadget),
        lambda: archive(file, bytes_bomb),
        lambda: archive(file, b"\x80\x02ccanary_module\nevil\n)R."),
        lambda: archive(file, pickle.dumps({}), compressed=True, extra=bytes(300_000_000)),
        lambda: archive(file, b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        lambda: torch.save({"model": Gadget(str(canary))}, file, _use_new_zipfile_serialization=False),
        lambda: archive(file, TUPLES),
    ]
    for write in writers:
        write()
        refused_everywhere(file, tmp_path)


def test_address_is_no_file(tmp_path):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/model.ckpt"
        refused_everywhere(url, tmp_path)
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"ckpt_path": url}))
        launched = launch(["fit", "--config", str(tmp_path / "mine.yaml"), *data_options()], tmp_path)
        assert launched.code == 2
        server.shutdown()
    assert not asked


@pytest.mark.parametrize(
    "config",
    [
        {"trainer": {"logger": {"class_path": "canary_module.Evil"}}},
        {"trainer": {"logger": "canary_module.Evil"}},
        {"trainer": {"callbacks": [{"class_path": "canary_module.Evil"}]}},
        {"trainer": {"callbacks": "canary_module.Evil"}},
        {"trainer": {"strategy": "canary_module.Evil"}},
        {"trainer": {"plugins": ["canary_module.Evil"]}},
        {"trainer": {"profiler": "canary_module.Evil"}},
        {"trainer": "other.yaml"},
        {"model": "other.yaml"},
        {"model": {"class_path": "canary_module.Evil"}},
        {"model": {"network": ["vgg11"]}},
        {"data": {"class_path": "canary_module.Evil"}},
        {"name": "../../up"},
        {"seed_everything": {"a": 1}},
        ["canary_module.Evil"],
    ],
)
def test_run_folder_from_elsewhere(run, tmp_path, canary, config):
    """A config.yaml beside a checkpoint can name classes; unlike one given with --config it is not followed."""
    (tmp_path / "got" / "checkpoints").mkdir(parents=True)
    file = tmp_path / "got" / "checkpoints" / "last.ckpt"
    file.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    (tmp_path / "other.yaml").write_text("class_path: canary_module.Evil\nlogger: canary_module.Evil\n")
    (tmp_path / "got" / "config.yaml").write_text(yaml.safe_dump(config))
    launched = launch(["fit", "--ckpt_path", str(tmp_path / "got"), *data_options()[2:4]], tmp_path)
    assert launched.code == 2
    one_line(launched)


def test_yaml_that_runs_or_grows_is_refused(run, tmp_path, canary):
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "last.ckpt"
    file.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    for text in ("!!python/object/apply:canary_module.evil []", "\n".join([*lines, "trainer: {callbacks: *a29}"])):
        (tmp_path / "config.yaml").write_text(text)
        began = time.process_time()
        assert launch(["fit", "--ckpt_path", str(file), *data_options()[2:4]], tmp_path).code == 2
        assert time.process_time() - began < 5


def test_environment_cannot_open_the_door(run, tmp_path, canary, monkeypatch):
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    checkpoint = good(run) | {"extra": Gadget(str(canary))}
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    refused_everywhere(tmp_path / "hostile.ckpt", tmp_path)


def test_finders_restore_their_own_files_as_weights_only(tmp_path, monkeypatch):
    """The learning-rate finder saves and loads a checkpoint behind the scenes."""
    seen = []
    real = torch.load

    def spy(*args, **kwargs):
        seen.append(kwargs.get("weights_only") or os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == "1")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch, "load", spy)
    launched = fit(
        tmp_path, "--trainer.callbacks", "LearningRateFinder", "--trainer.callbacks.num_training_steps", "5",
        "--trainer.limit_train_batches", "8", "--trainer.logger", "false",
    )  # fmt: skip
    assert launched.code == 0, launched.err
    assert len(seen) > 1
    assert all(seen)


def test_every_saved_file_is_plain(run):
    files = list(run.rglob("*.ckpt"))
    assert len(files) == 2
    for file in files:
        checkpoint = torch.load(file, weights_only=True)
        assert json.loads(json.dumps(checkpoint["hyper_parameters"])) == checkpoint["hyper_parameters"]
        assert json.loads(json.dumps(checkpoint["datamodule_hyper_parameters"]))
        assert model_options(checkpoint, Classifier)
        assert saved_data_options(read_checkpoint(file))


@pytest.mark.parametrize("value", [Path("x"), torch.float32, object(), (1, 2), {1}, OrderedDict(a=1), b"x", 1j])
def test_options_that_are_not_plain_fail(value):
    for owner, name in ((Classifier, "lr"), (Classifier, "network"), (FashionMNISTDataModule, "augment")):
        with pytest.raises(UserError, match="is refused"):
            checked_options({name: value}, owner)


def test_all_options_declare_plain_types():
    """An option of another type would make checkpoints that their own reader refuses."""
    from vgg_lightning.base.options import fits

    for owner in (Classifier, FashionMNISTDataModule):
        made = owner()
        assert checked_options(dict(made.hparams), owner) == dict(made.hparams)
    assert not fits(True, int)
    assert not fits(namedtuple("T", "a")(1), list[str])


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)
OPTION_NAMES = st.sampled_from([*Classifier().hparams, "_instantiator", "_class_path", "class_path", "self"])


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes=st.dictionaries(OPTION_NAMES, plain_values, min_size=1, max_size=3))
def test_fuzzed_options_are_refused_or_right(run, changes):
    """Whatever the options hold, a checkpoint opens as what it is or is refused in one line."""
    checkpoint = good(run)
    before = dict(checkpoint["hyper_parameters"])
    checkpoint["hyper_parameters"].update(changes)
    file = run.parent / "fuzzed.ckpt"
    torch.save(checkpoint, file)
    try:
        opened = load_classifier(file)
    except UserError as error:
        if "\n" in str(error):
            raise
    else:
        assert opened.network.state_dict().keys() == Classifier(**before).network.state_dict().keys()


SUBCOMMANDS = ("fit", "validate", "test", "predict")


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
@pytest.mark.parametrize("through_config", [False, True])
def test_structure_is_never_overridden_without_a_word(run, tmp_path, subcommand, through_config):
    asked = (("model.ratio", "32", "64"), ("model.head", "classic", "gap"), ("data.image_size", "64", "32"))
    for option, value, has in asked:
        group, name = option.split(".")
        if through_config:
            (tmp_path / "mine.yaml").write_text(yaml.safe_dump({group: {name: yaml.safe_load(value)}}))
            options = ["--config", str(tmp_path / "mine.yaml")]
        else:
            options = [f"--{option}", value]
        line = one_line(launch([subcommand, "--ckpt_path", str(run), *data_options()[2:4], *options], tmp_path))
        for word in (f"--{option}", value, has):
            assert word in line


def test_harmless_options_follow_the_command_line(run, tmp_path):
    copy = tmp_path / "lightning_logs" / "a" / "version_0"
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("checkpoints/last.ckpt", "config.yaml"):
        (copy / name).write_bytes((run / name).read_bytes())
    options = ["--model.lr", "0.0125", "--trainer.max_epochs", "2", "--model.schedule", "constant"]
    launched = launch(["fit", "--ckpt_path", str(copy), *data_options()[2:4], *options], tmp_path)
    assert launched.code == 0, launched.err
    checkpoint = torch.load(copy / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["lr"] == 0.0125
    assert checkpoint["epoch"] == 1
    assert (yaml.safe_load((copy / "config.yaml").read_text()))["trainer"]["max_epochs"] == 2


def test_reading_changes_nothing(run):
    file = run / "checkpoints" / "best.ckpt"
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    load_classifier(run)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


def whole(run):
    return (run / "config.yaml").read_text()


BROKEN = {
    "empty": lambda run: "",
    "cut off in a line": lambda run: whole(run)[: len(whole(run)) // 2] + "\n  x: [",
    "cut off after the model": lambda run: "model" + whole(run).split("\nmodel", 1)[1].split("\ndata:")[0] + "\n",
    "cut off within the data": lambda run: whole(run).split("\n  batch_size:")[0] + "\n",
    "cut off before its end": lambda run: whole(run).split("\ntest:")[0] + "\n",
    "no text": lambda run: b"\xff\xfe\x00",
    "missing": lambda run: None,
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_configuration_stops_no_resume_and_is_said(run, tmp_path, kind):
    got = shutil.copytree(run, tmp_path / "lightning_logs" / "got" / "version_0")
    for name in ("hparams.yaml", "metrics.csv", "results.json"):
        (got / name).write_bytes(b"\xff{half")
    file = got / "config.yaml"
    file.unlink()
    content = BROKEN[kind](file if kind == "a pipe" else run)
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    command = ["fit", "--ckpt_path", str(got), *data_options()[2:4], "--show", "none"]
    brief = ["--trainer.limit_train_batches", "2", "--trainer.limit_test_batches", "1", "--trainer.max_epochs", "2"]
    said = launch([*command, *brief], tmp_path)
    assert said.code == 0, said
    (line,) = [line for line in said.err.splitlines() if "config.yaml" in line]
    assert "options of the Trainer, such as --trainer.max_epochs, are the default ones unless they are given" in line
    assert "last.ckpt" in line
    saved = yaml.safe_load(file.read_text())
    assert saved["model"]["ratio"] == 64  # of the checkpoint
    assert saved["trainer"]["limit_train_batches"] == 2
    assert json.loads((got / "results.json").read_text())["epochs"] == 2
