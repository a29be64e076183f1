"""`vgg-lightning compare`, through its door; each measurement is a process of its own."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from vgg_lightning.base import machine
from vgg_lightning.base.errors import UserError
from vgg_lightning.compare import measure
from vgg_lightning.compare.command import FIGURES, main
from vgg_lightning.run.precision import chosen

QUICK = ["--image_size", "32", "--batch_size", "4", "--batches", "1", "--threads", "1", "--device", "cpu"]


def test_json_has_the_summarys_and_measured_figures(capsys):
    args = ["vgg11", "resnet18", *QUICK, "--ratio=4", "--hidden_units", "4096", "--format", "json"]
    assert main(args) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    vgg, resnet = result["networks"]
    assert (result["batch_size"], result["threads"], result["device"]) == (4, 1, "cpu")
    assert (vgg["network"], vgg["options"]["ratio"], resnet["network"]) == ("vgg11", 4, "resnet18")
    assert "ratio" not in resnet["options"]
    assert "resnet18 has no option 'ratio': compared without it" in captured.err
    assert (vgg["weight_layers"], resnet["params"]) == (11, 11_178_378)
    for network in (vgg, resnet):
        assert network["error"] is None
        assert network["inference_examples_per_second"] > network["training_examples_per_second"] > 0
        assert network["training_peak_bytes"] >= network["inference_peak_bytes"] >= network["base_bytes"] > 2**26
    # Weights and gradients are there in training, whatever else is: 17.9 M of 4 bytes, twice.
    assert vgg["training_peak_bytes"] - vgg["base_bytes"] > 1.5 * 4 * vgg["params"]


def test_it_measures_in_float32_and_says_so(stand_in, capsys):
    stand_in(figures)
    assert main(["vgg11", *QUICK, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "32-true"
    with pytest.raises(UserError, match=r"--trainer\.precision"):
        main(["vgg11", *QUICK, "--trainer.precision", "bf16-mixed"])


def test_it_measures_in_the_precision_that_is_asked_for(stand_in, capsys):
    jobs = []
    stand_in(lambda job: jobs.append(job) or figures(job))
    for asked in ("bf16-mixed", "auto"):
        assert main(["vgg11", *QUICK, "--format", "json", "--precision", asked]) == 0
        assert json.loads(capsys.readouterr().out)["precision"] == jobs[-1]["precision"]
    assert [job["precision"] for job in jobs] == ["bf16-mixed", chosen(True)]


def test_it_starts_without_lightning():
    code = "import sys, vgg_lightning.compare.command; sys.exit('lightning' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bfloat16_reaches_the_network():
    seen = []
    network = nn.Linear(2, 2)
    network.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    x, y, optimizer = torch.rand(4, 2), torch.zeros(4, dtype=torch.long), torch.optim.SGD(network.parameters(), lr=0.1)
    for precision, kind in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        job = measure.Job("linear", {}, 4, 1, "cpu", None, precision=precision)
        measure._infer(network, x, job.autocast())
        measure._train(network, optimizer, x, y, job.autocast())
        assert seen == [kind, kind]
        assert network.weight.dtype == network.weight.grad.dtype == torch.float32
        seen.clear()


@pytest.fixture
def stand_in(monkeypatch):
    """Measure by a given function in place of a process."""

    def use(function):
        def run(command, **_):
            job = json.loads(command[-1])
            return subprocess.CompletedProcess(command, *function(job))

        monkeypatch.setattr(subprocess, "run", run)

    return use


def figures(job):
    keys = list(FIGURES)[-5:]
    return 0, json.dumps(dict.fromkeys(keys, 2.0**20 * len(job["network"]))), ""


def test_csv_and_markdown_and_table(stand_in, capsys):
    stand_in(figures)
    args = ["vgg11", "lenet", *QUICK, "--ratio", "4", "--format"]
    main([*args, "csv"])
    vgg, lenet = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (vgg["network"], vgg["ratio"], lenet["ratio"], vgg["batch_size"]) == ("vgg11", "4", "", "4")
    assert float(lenet["training_peak_bytes"]) == 5 * 2**20
    main([*args, "markdown"])
    header, _, *rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert [cell.strip() for cell in header.split("|")[2:4]] == ["vgg11", "lenet"]
    assert len(rows) == len(FIGURES)
    assert all(row.count("|") == 4 for row in rows)
    main([*args, "table"])
    assert "measured: peak memory in training" in capsys.readouterr().out


def test_a_network_that_fails_leaves_the_others(stand_in, capsys):
    answers = {
        "vgg11": (-9, "", ""),
        "vgg13": (1, "", "Traceback\nValueError: something"),
        "lenet": (0, json.dumps({"error": "out of memory: use less"}), ""),
    }
    stand_in(lambda job: answers.get(job["network"]) or figures(job))
    assert main(["vgg11", "vgg13", "lenet", "resnet18", *QUICK, "--format", "json"]) == 0
    captured = capsys.readouterr()
    *failed, resnet = json.loads(captured.out)["networks"]
    assert all(entry["training_peak_bytes"] is None and entry["params"] for entry in failed)
    assert "out of memory" in failed[0]["error"]
    assert failed[1]["error"] == "ValueError: something"
    assert resnet["training_peak_bytes"] == 8 * 2**20
    assert len(captured.err.splitlines()) == 3


def test_out_of_memory_for_real(capsys):
    # 10 million images are 38 TiB for the input alone.
    assert main(["lenet", *QUICK, "--image_size", "1024", "--batch_size", "10000000"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "lenet was not measured: out of memory: lower batch_size or image_size\n"
    assert "TiB" in captured.out  # what was computed is there


def test_interrupted_it_prints_what_it_has(stand_in, capsys):
    def interrupt(job):
        if job["network"] == "lenet":
            raise KeyboardInterrupt
        return figures(job)

    stand_in(interrupt)
    assert main(["resnet18", "lenet", *QUICK, "--format", "json"]) == 130
    captured = capsys.readouterr()
    resnet, lenet = json.loads(captured.out)["networks"]
    assert resnet["training_peak_bytes"]
    assert lenet["training_peak_bytes"] is None
    assert captured.err.startswith("interrupted")


def test_interrupted_for_real_it_leaves_no_process_behind():
    heeds = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"  # also behind a shell's `&`
    code = f"{heeds}; from vgg_lightning.compare.command import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        code,
        "vgg11",
        "--batch_size",
        "64",
        "--batches",
        "1000",
        "--threads",
        "1",
    ]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        children = wait_for(lambda: measuring_children_of(process.pid))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert "128.81 M" in out
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def measuring_children_of(pid: int) -> list[str]:
    """Children that measure a network: libraries may start others for a moment while they are imported."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if "compare.measure" in command_of(child)]


def command_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def wait_for(condition, seconds: float = 300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("", "network"),
        ("vgg12", "use one of"),
        ("lenet nin --ratio 4", "none of lenet, nin has the option 'ratio'"),
        ("lenet --rato 4", r"did you mean --ratio\?"),
        ("lenet alexnet --image_size 28", "at least 65"),
        ("lenet --batches 0", "1 or more"),
        ("lenet --threads -1", "--threads"),
    ],
)
def test_bad_input_is_one_line(args, text):
    with pytest.raises(UserError, match=text) as error:
        main(args.split())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error, expected):
    assert machine.out_of_memory(error) is expected


def test_peak_memory_is_the_processs_own():
    """A process that starts a small one hands its own peak on in ru_maxrss, which thus cannot be used."""
    ballast = bytearray(2**29)
    ballast[::4096] = b"1" * (2**29 // 4096)
    code = "from vgg_lightning.base.machine import peak_memory; print(peak_memory('cpu'))"
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(out.stdout) < machine.peak_memory("cpu") - 2**27
