"""The model of several GPUs against figures worked out by hand."""

import csv
import io
import itertools
import json

import pytest

from vgg_lightning.base.errors import UserError
from vgg_lightning.compare.command import main
from vgg_lightning.compare.scale_model import BUCKET, Link, Load, load_of, step_of
from vgg_lightning.networks.cost import summarize

LINK = Link(bandwidth=10e9, latency=1e-5)


def test_the_ring_by_hand():
    # 100 MB over 10 GB/s: 4 GPUs send 2 * 3 / 4 * 100 MB = 150 MB in 15 ms, and 6 messages of 10 us.
    step = step_of(Load(compute=0.030, backward=0.020, gradient_bytes=100_000_000), 4, LINK)
    assert step.communication == pytest.approx(0.01506)
    assert step.share == pytest.approx(0.01506 / 0.04506)
    assert step.efficiency == pytest.approx(0.030 / 0.04506)
    # The backward pass of 20 ms hides all but the last of 100 MB / 25 MiB = 3.81 buckets.
    last = 0.01506 * BUCKET / 100_000_000
    assert step.overlapped_efficiency == pytest.approx(0.030 / (0.030 + last))


def test_a_slow_link_sticks_out_of_the_backward_pass():
    step = step_of(Load(compute=0.003, backward=0.002, gradient_bytes=100_000_000), 2, LINK)
    assert step.communication == pytest.approx(0.01002)
    assert step.overlapped_efficiency == pytest.approx(0.003 / (0.003 + 0.00802))


def test_small_gradients_are_one_bucket_and_one_gpu_sends_nothing():
    load = Load(compute=0.001, backward=0.0006, gradient_bytes=1_000_000)
    step = step_of(load, 2, LINK)  # 1 MB in 0.1 ms, 2 messages: 0.12 ms after the backward pass
    assert step.overlapped_efficiency == step.efficiency == pytest.approx(0.001 / 0.00112)
    assert step_of(load, 1, LINK).efficiency == 1.0


def test_vgg16_by_hand():
    # 138,357,544 parameters; training: three times 15.47 G multiply-adds, less the first layer's for its input.
    summary = summarize("vgg16", in_channels=3, num_classes=1000)
    load = load_of(summary, 64, flops=100e12)
    assert load.gradient_bytes == 553_430_176
    first = 64 * 224 * 224 * 27
    training = 3 * 15_470_264_320 - first
    assert load.compute == pytest.approx(64 * 2 * training / 100e12)
    assert load.backward / load.compute == pytest.approx((training - 15_470_264_320) / training)
    assert load_of(summary, 64, 1.0, examples_per_second=640).compute == pytest.approx(0.1)


def rows(capsys, *args):
    assert main(["vgg11", *args, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)["steps"]


def test_more_gpus_and_slower_links_wait_longer(capsys):
    fast = rows(capsys, "--gpus", "2,8,64", "--link", "nvlink4")
    slow = rows(capsys, "--gpus", "2,8,64", "--link", "10GbE")
    assert [row["gpus"] for row in slow] == [2, 8, 64]
    assert all(a["efficiency"] > b["efficiency"] for a, b in itertools.pairwise(slow))
    assert all(a["efficiency"] < b["efficiency"] for a, b in zip(slow, fast, strict=True))
    assert all(row["overlapped_efficiency"] >= row["efficiency"] for row in slow)
    # 12.5 GB/s are 100GbE, whose latency is that of an unnamed link too.
    assert rows(capsys, "--gpus", "8", "--link", "12.5") == rows(capsys, "--gpus", "8", "--link", "100GbE")


def test_table_csv_and_markdown(capsys):
    args = ["vgg11", "resnet18", "--gpus", "2,8", "--batch_size", "32"]
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "a model, not measured: batch 32 on each GPU, 312 TFLOP/s at 30%" in out
    assert len(out.splitlines()) == 2 + 2 + 4
    main([*args, "--format", "csv"])
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["network"], row["gpus"]) for row in found] == [
        ("vgg11", "2"), ("vgg11", "8"), ("resnet18", "2"), ("resnet18", "8")]  # fmt: skip
    main([*args, "--format", "markdown"])
    assert capsys.readouterr().out.count("\n|") == 6


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("--gpus two", "--gpus two is not a list of numbers"),
        ("--gpus 0", "--gpus 0 is not a list"),
        ("--gpus 2 --link 100GB", r"did you mean 100GbE\?"),
        ("--gpus 2 --link -3", "--link -3"),
        ("--gpus 2 --utilisation 1.5", "--utilisation 1.5 is out of range"),
        ("--gpus 2 --peak_tflops nan", "'nan' is not a positive number"),
        ("--gpus 2 --examples_per_second 0", "'0' is not a positive number"),
    ],
)
def test_bad_input_is_one_line(args, text):
    with pytest.raises(UserError, match=text) as error:
        main(["vgg11", *args.split()])
    assert "\n" not in str(error.value)
