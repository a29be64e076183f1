"""--model.compile: the network alone is compiled, and nothing else changes."""

import pytest
import torch

from vgg_lightning import Classifier, load_classifier
from vgg_lightning.__main__ import main

TINY = (
    *("--model.ratio", "32", "--model.head", "gap", "--model.dropout", "0", "--data.batch_size", "16"),
    *("--trainer.limit_train_batches", "3", "--trainer.limit_val_batches", "1", "--trainer.max_epochs", "1"),
    *("--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--test", "false"),
)


def fit(folder, *options):
    return main(["fit", *TINY, "--trainer.default_root_dir", str(folder), "--name", "run", *options])


def checkpoint(folder):
    return folder / "lightning_logs" / "run" / "version_0" / "checkpoints" / "last.ckpt"


def weights(folder):
    return torch.load(checkpoint(folder), weights_only=True)["state_dict"]


def test_a_compiled_run_saves_the_same_names_and_learns_the_same(fashion_mnist_dir, tmp_path):
    assert fit(tmp_path / "plain") == 0
    assert fit(tmp_path / "compiled", "--model.compile", "aot_eager") == 0
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)
    model = load_classifier(checkpoint(tmp_path / "compiled"))
    assert model.hparams["compile"] == "aot_eager"
    assert len(model.predict(torch.zeros(3, 28, 28, dtype=torch.uint8)).names) == 3


def test_the_network_is_what_is_compiled(fashion_mnist_dir, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: seen.append((type(self).__name__, options)))
    assert fit(tmp_path, "--model.compile", "reduce-overhead") == 0
    assert seen == [("VGG", {"dynamic": False, "mode": "reduce-overhead"})]


def test_an_unknown_way_to_compile_is_one_line(capsys, tmp_path):
    assert main(["fit", "--model.compile", "reduce-overheads", "--trainer.default_root_dir", str(tmp_path)]) == 2
    assert "did you mean reduce-overhead" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("compile_name", ["none", "aot_eager"])
def test_a_compiled_run_resumes_exactly(fashion_mnist_dir, tmp_path, compile_name):
    options = ("--model.compile", compile_name, "--model.dropout", "0.5")
    assert fit(tmp_path / "whole", *options, "--trainer.max_epochs", "2") == 0
    assert fit(tmp_path / "parts", *options) == 0
    assert fit(tmp_path / "parts", *options, "--trainer.max_epochs", "2", "--resume") == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


class OneBuffer(torch.nn.Module):
    """Writes every output over the last one, as a CUDA graph does."""

    def __init__(self, network):
        super().__init__()
        self.network, self.out = network, None

    def forward(self, x):
        out = self.network(x)
        self.out = out if self.out is None else self.out.copy_(out)
        return self.out


@torch.no_grad()
def test_views_are_averaged_where_outputs_are_written_over_each_other():
    options = {"ratio": 32, "head": "gap", "tta": "flip_shift", "compile": "reduce-overhead"}
    model = Classifier(network="vgg11", **options).eval()
    x = torch.randn(2, 1, 32, 32)
    expected = model.average(x)
    model.network = OneBuffer(model.network)
    torch.testing.assert_close(model.average(x), expected)
