"""Every mistake gets one line that names the option and the remedy, code 2, at once, and leaves nothing behind."""

import os
import shlex
import subprocess
import sys
import time

import pytest
import torch
import yaml
from small import data_options, fit, fit_line, launch, one_line

# options of fit -> words that the line has to hold
FIT = {
    "--model.learning_rate 3": "--model.learning_rate did you mean --model.lr?",
    "--model.network_ vgg11": "--model.network_ did you mean --model.network?",
    "--lr 0.1": "--lr did you mean --model.lr?",
    "--epochs 3": "--epochs did you mean --trainer.max_epochs?",
    "--trainer.max_epoch 3": "--trainer.max_epoch did you mean --trainer.max_epochs?",
    "--model.l 0.1": "--model.l is unknown",
    "--model.lr abc": "--model.lr takes a number, got 'abc'",
    "--model.lr .nan": "--model.lr takes a positive number",
    "--model.lr .inf": "--model.lr takes a positive number",
    "--model.lr -1": "--model.lr takes a positive number",
    "--model.lr": "--model.lr has no value",
    "--model.ratio 1.5": "--model.ratio takes a whole number, got '1.5'",
    "--model.ratio 7": "ratio 7 use one of",
    "--model.batch_norm maybe": "--model.batch_norm takes true or false, got 'maybe'",
    "--model.network vgg12": "'vgg12' did you mean vgg use one of",
    "--model.hidden_units 0": "--model.hidden_units takes 1 or more",
    "--model.hidden_units 1000000000 --model.head classic": "GB --model.hidden_units",
    "--model.hidden_units 1000000000000000000000 --model.head classic": "too large --model.hidden_units",
    "--model.head gapp": "--model.head takes one of classic, batchnorm, gap 'gapp' did you mean gap?",
    "--model.init foo": "--model.init takes one of default, xavier 'foo'",
    "--model.optimizer sgdd": "--model.optimizer takes sgd did you mean sgd",
    "--model.tta flop": "--model.tta takes none, flip did you mean flip",
    "--model.schedule foo": "--model.schedule takes constant, cosine",
    "--model.num_classes 5": "10 classes 5 --model.num_classes 10",
    "--model.image_size 32": "--model.image_size follows --data.image_size",
    "--data.in_channels 3": "--data.in_channels follows --model.in_channels",
    "--model.weights nope": "nope does not exist",
    "--model foo.yaml": "--model takes a configuration file",
    "--data.image_size 16": "image_size 16 is too small at least 32",
    "--data.image_size 100000000": "GB --data.image_size",
    "--data.image_size 20000": "GB --data.batch_size --data.image_size",
    "--data.batch_size 0": "--data.batch_size takes 1 or more",
    "--data.val_size 60000": "--data.val_size takes 0 to 511",
    "--data.val_size -1": "--data.val_size takes 0 to 511",
    "--data.augment [foo]": "'foo' --data.augment takes a list of flip, shift",
    "--data.augment flip": "--data.augment takes a list such as [a, b]",
    "--data.dataset foo": "dataset 'foo' is unknown use one of fashion_mnist, idx --import",
    "--data.data_dir /nowhere": "/nowhere is missing data_dir",
    "--trainer.precision foo": "--trainer.precision takes one of 16-mixed bf16-mixed 32-true",
    "--trainer.accelerator foo": "--trainer.accelerator 'foo' auto, gpu cuda cpu",
    "--trainer.devices 0": "--trainer.devices 0 auto or 1 or more",
    "--trainer.devices -3": "--trainer.devices -3 auto or 1 or more",
    "--trainer.devices foo": "--trainer.devices foo auto or 1 or more",
    "--trainer.strategy nonsense": "--trainer.strategy 'nonsense' auto, ddp",
    "--trainer.max_epochs -5": "--trainer.max_epochs -5 1 or more",
    "--trainer.max_epochs -1": "--trainer.max_epochs -1 --trainer.max_steps",
    "--trainer.min_epochs 3 --trainer.max_epochs 2": "--trainer.min_epochs 3 contradicts --trainer.max_epochs 2",
    "--trainer.min_steps 9 --trainer.max_steps 2": "--trainer.min_steps 9 contradicts --trainer.max_steps 2",
    "--trainer.max_epochs foo": "--trainer.max_epochs takes a whole number, got 'foo'",
    "--trainer.max_steps -7": "--trainer.max_steps -7 1 or more",
    "--trainer.limit_train_batches 1.5": "--trainer.limit_train_batches 1.5 share",
    "--trainer.limit_train_batches 0": "--trainer.limit_train_batches 0",
    "--trainer.gradient_clip_val -1": "--trainer.gradient_clip_val -1 a positive number",
    "--trainer.gradient_clip_algorithm foo": "--trainer.gradient_clip_algorithm norm, value",
    "--trainer.accumulate_grad_batches 0": "--trainer.accumulate_grad_batches 0 1 or more",
    "--trainer.val_check_interval 0": "--trainer.val_check_interval 0",
    "--trainer.check_val_every_n_epoch 0": "--trainer.check_val_every_n_epoch 0 1 or more",
    "--trainer.num_nodes 0": "--trainer.num_nodes 0 1 or more",
    "--trainer.callbacks foo.Bar": "--trainer.callbacks foo.Bar No module named 'foo'",
    "--trainer.callbacks LearningRateMonito": "--trainer.callbacks name of no class did you mean LearningRateMonitor?",
    "--trainer.logger csv": "--trainer.logger 'csv' is the name of no class CSVLogger or true or false",
    "--trainer.logger CSVLogger": "--trainer.logger CSVLogger needs --trainer.logger.save_dir",
    "--trainer.logger CSVLogger --trainer.logger.savedir x": "--trainer.logger.savedir mean --trainer.logger.save_dir?",
    "--trainer.logger CometLogger": "--trainer.logger CometLogger cannot be built: comet",
    "--trainer.profiler foo": "--trainer.profiler 'foo' simple",
    "--trainer.max_time foo": "foo DD:HH:MM:SS",
    "--trainer.default_root_dir /proc/x": "/proc/x --trainer.default_root_dir",
    "--trainer.default_root_dir FOLDER/file": "file --trainer.default_root_dir",
    "--early_stopping -1": "--early_stopping -1 0 (never)",
    "--early_stopping 1 --data.val_size 0": "--early_stopping --data.val_size",
    "--name ''": "--name '' letters",
    "--name a/b": "--name 'a/b' letters",
    "--name ..": "--name '..' letters",
    "--seed_everything -1": "--seed_everything -1 takes 0 to",
    "--seed_everything 99999999999999999": "--seed_everything takes 0 to",
    "--config nope": "--config 'nope' the presets are quick",
    "--config qick": "--config 'qick' did you mean quick?",
    "--config FOLDER": "--config neither a file nor a preset",
    "--config FOLDER/broken.yaml": "--config broken.yaml is not YAML",
    "--config FOLDER/binary.yaml": "--config binary.yaml is not YAML",
    "--config FOLDER/list.yaml": "--config list.yaml holds no options",
    "--config FOLDER/empty.yaml": "--config empty.yaml holds no options",
    "--config FOLDER/group.yaml": "group model empty",
    "--config FOLDER/unknown.yaml": "--model.lrr is unknown did you mean --model.lr",
    "--config FOLDER/type.yaml": "--model.lr takes a number, got 'abc'",
    "--config": "--config has no value",
    "foo": "unexpected 'foo' options start with --",
    "--ckpt_path nope.ckpt": "nope.ckpt does not exist",
    "--ckpt_path FOLDER": "is a folder without checkpoints/best.ckpt",
    "--ckpt_path FOLDER/page.ckpt": "page.ckpt is not a checkpoint",
    "--ckpt_path FOLDER/empty.ckpt": "empty.ckpt is not a checkpoint",
    "--weights_only false": "--weights_only is unknown",
}
OTHERS = {
    "test": "test needs weights --ckpt_path",
    "validate": "validate needs weights --ckpt_path",
    "predict": "predict needs weights --ckpt_path",
    "fit test": "unexpected 'test'",
    "--model.lr 3 fit": "--model.lr must come after the subcommand fit",
    "fitt": "'fitt' did you mean fit?",
    "export": "checkpoint",
    "export nope.ckpt": "nope.ckpt does not exist",
    "export x --format onxx": "--format 'onxx' safetensors",
    "export x --output /nowhere/x.safetensors": "--output no folder /nowhere",
    "export x --output x.bin": "--output x.bin .safetensors",
    "export x --outputt x": "--outputt did you mean --output?",
    "data --foo": "--foo --data_dir",
    "presets foo": "preset 'foo' is unknown",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    texts = {
        "broken.yaml": "a: [1\n b: {", "list.yaml": "- 1\n", "empty.yaml": "", "group.yaml": "model:\n",
        "unknown.yaml": "model: {lrr: 3}\n", "type.yaml": "model: {lr: abc}\n",
        "page.ckpt": "<html>404</html>", "empty.ckpt": "", "file": "",
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    return folder


def check(launched, words, began):
    line = one_line(launched)
    assert launched.code == 2, line
    for word in words.split():
        assert word in line, line
    assert "docs.pytorch" not in line
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("options", "words"), FIT.items())
def test_mistake_in_fit(tmp_path, folder, options, words):
    began = time.process_time()
    launched = fit(tmp_path, *shlex.split(options.replace("FOLDER", str(folder))))
    check(launched, words, began)
    assert not list(tmp_path.iterdir()), "something was left behind"


@pytest.mark.parametrize(("line", "words"), OTHERS.items())
def test_mistake_in_other_subcommands(tmp_path, line, words):
    began = time.process_time()
    check(launch(shlex.split(line), tmp_path), words, began)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_no_gpu(tmp_path, name):
    began = time.process_time()
    check(fit(tmp_path, "--trainer.accelerator", name), "no GPU here --trainer.accelerator cpu", began)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    began = time.process_time()
    check(fit(tmp_path, "--trainer.default_root_dir", str(tmp_path)), "--trainer.default_root_dir", began)


def test_an_empty_run_folder_of_a_late_mistake_is_removed(tmp_path, monkeypatch):
    """A fault that only training itself can find leaves no run folder either, but spares those of other runs."""
    from vgg_lightning.base.errors import UserError

    assert fit(tmp_path).code == 0
    before = sorted(tmp_path.rglob("*"))

    def fail(self, *_):
        raise UserError("late")

    monkeypatch.setattr("vgg_lightning.classifier.Classifier.on_train_batch_start", fail)
    assert one_line(fit(tmp_path)) == "error: late"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_is_one_line(tmp_path, monkeypatch, error):
    def fail(self, *_):
        raise error

    monkeypatch.setattr("vgg_lightning.classifier.Classifier.training_step", fail)
    launched = fit(tmp_path)
    assert launched.code == 1
    assert one_line(launched) == "error: out of memory: lower --data.batch_size or --data.image_size"


def test_unexpected_exception_is_one_line_and_debug_shows_it(tmp_path, monkeypatch):
    def fail(self, *_):
        raise KeyError("what\nis this")

    monkeypatch.setattr("vgg_lightning.classifier.Classifier.training_step", fail)
    launched = fit(tmp_path)
    assert launched.code == 1
    assert "KeyError" in one_line(launched)
    assert "--debug" in one_line(launched)
    shown = fit(tmp_path, "--debug")
    assert "Traceback" in shown.err


@pytest.mark.parametrize("options", [["--model.lr", "abc"], ["--trainer.max_epoch", "3"], ["--data.val_size", "999"]])
def test_mistakes_in_a_process_of_their_own(tmp_path, options):
    command = [sys.executable, "-m", "vgg_lightning", *fit_line(*options)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert options[0] in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_same_mistakes_in_a_file(tmp_path):
    """What is refused on the command line is refused in --config."""
    for text, words in (
        ({"trainer": {"max_epoch": 3}}, "trainer.max_epoch did you mean --trainer.max_epochs"),
        ({"trainer": {"gradient_clip_val": -1}}, "--trainer.gradient_clip_val"),
        ({"model": {"ratio": "four"}}, "--model.ratio takes a whole number, got 'four'"),
        ({"data": {"batch_size": [1]}}, "--data.batch_size takes a whole number"),
        ({"name": "../up"}, "--name letters"),
    ):
        file = tmp_path / "mine.yaml"
        file.write_text(yaml.safe_dump(text))
        began = time.process_time()
        check(launch(["fit", "--config", str(file), *data_options()], tmp_path), words, began)
        assert [entry.name for entry in tmp_path.iterdir()] == ["mine.yaml"]
