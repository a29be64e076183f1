"""A run that is broken anywhere and resumed ends bit for bit as if it had not been."""

import json
import math
import random
import shutil
import signal
import time

import pytest
from harness import (
    EPOCHS,
    NETWORK,
    STEPS,
    differences,
    essence,
    everything,
    launch,
    only_run,
    output,
    record,
)

SEED = 1


def kills(long):
    return 20 if long else 4


def resume_until_done(server, folder, command):
    """Type the same command with --resume, or without it where there is nothing to resume yet."""
    code = server.run(folder, *command, "--resume")
    if code == 2 and "has no valid checkpoint" in output(folder):
        for run in folder.glob("lightning_logs/*/version_*"):
            shutil.rmtree(run)  # killed before its first checkpoint
        code = server.run(folder, *command)
    assert code == 0, output(folder)


def campaign(name, long, breaks, server, options, unbroken, tmp_path, every):
    """Break a run in each of the ways, resume it and count how many end like the unbroken one."""
    same = 0
    for i, break_run in enumerate(breaks):
        folder = tmp_path / str(i)
        folder.mkdir()
        command = ["fit", *NETWORK, *options, "--checkpoint_every_n_steps", every]
        break_run(folder, command)
        resume_until_done(server, folder, command)
        found = differences(unbroken, everything(only_run(folder)))
        same += not found
        print(name, i, found[:5])
    if long:
        record(name, same, len(breaks), SEED)
    assert same == len(breaks)


def test_kill_9_at_random_steps(long, server, options, unbroken, tmp_path):
    def at(step):
        def break_run(folder, command):
            code = server.run(folder, *command, at={"hook": "training_step", "count": step, "signal": signal.SIGKILL})
            assert code == -signal.SIGKILL

        return break_run

    steps = random.Random(SEED).choices(range(1, EPOCHS * STEPS + 1), k=kills(long))
    campaign("kill -9 at random steps", long, [at(s) for s in steps], server, options, unbroken, tmp_path, every=3)


def test_kill_9_at_random_times(long, server, options, unbroken, tmp_path):
    draw = random.Random(SEED)

    def break_run(folder, command):
        killed = False
        while not killed:  # until it did not end by itself before
            shutil.rmtree(folder / "lightning_logs", ignore_errors=True)
            code, _ = server.run_and_signal(folder, signal.SIGKILL, draw.uniform(0.3, 3.0), *command)
            killed = code == -signal.SIGKILL

    campaign("kill -9 at random times", long, [break_run] * kills(long), server, options, unbroken, tmp_path, every=1)


def test_killed_five_times_in_one_run(server, options, unbroken, tmp_path):
    command = ["fit", *NETWORK, *options, "--checkpoint_every_n_steps", "1"]
    for i in range(5):
        at = {"hook": "training_step", "count": 5, "signal": signal.SIGKILL}
        assert server.run(tmp_path, *command, *(["--resume"] if i else []), at=at) == -signal.SIGKILL
    resume_until_done(server, tmp_path, command)
    result = everything(only_run(tmp_path))
    assert not differences(unbroken, result)
    steps = [step for step, _ in result["tensorboard"]["train/every_step/loss"]]
    assert steps == list(range(EPOCHS * STEPS))  # each once, none missing


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_killed_with_a_whitening_stem_and_lookahead(server, options, tmp_path, precision):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    network = ["--model.network", "whitened_vgg", "--model.ratio", "32", "--model.tta", "flip"]
    command = ["fit", *network, *options, "--model.lookahead_steps", "3", "--checkpoint_every_n_steps", "1"]
    command += ["--trainer.precision", precision]
    assert server.run(whole, *command) == 0, output(whole)
    for again in (False, True):  # killed in steps 6 and 11: between two averages
        at = {"hook": "training_step", "count": 6, "signal": signal.SIGKILL}
        assert server.run(broken, *command, *(["--resume"] if again else []), at=at) == -signal.SIGKILL
    resume_until_done(server, broken, command)
    assert not differences(everything(only_run(whole)), everything(only_run(broken)))


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--trainer.accumulate_grad_batches", "2"],
        ["--trainer.val_check_interval", "0.5"],
        ["--model.optimizer", "adam", "--model.ema_decay", "0"],
        ["--data.val_size", "0"],
        ["--trainer.max_steps", str(EPOCHS * STEPS - 1)],
        [
            *("--model.optimizer", "muon", "--model.bias_lr_factor", "4", "--model.schedule_end", "0.1"),
            *("--data.augment", "[crop,erase,randaugment,cutmix:1:0.5]"),
        ],
        ["--model.sam_rho", "0.05", "--data.augment", "[affine,tone,cutout,mixup]"],
        ["--trainer.precision", "bf16-mixed"],
    ],
    ids=["plain", "accumulate", "validate twice", "adam", "no validation", "max_steps", "muon", "sam", "bfloat16"],
)
def test_resume_from_every_checkpoint(long, server, options, tmp_path, more):
    whole = tmp_path / "whole"
    whole.mkdir()
    command = ["fit", *NETWORK, *options, *more, "--checkpoint_every_n_steps", "1"]
    snapshots = tmp_path / "snapshots"
    assert server.run(whole, *command, snapshots=str(snapshots)) == 0, output(whole)
    unbroken = everything(only_run(whole))
    found = sorted(snapshots.iterdir())
    chosen = (
        found if long else [*random.Random(SEED).sample(found[:-1], 2), found[-1]]
    )  # after which nothing is trained
    same = sum(resumes_like(unbroken, server, snapshot, options, more) for snapshot in chosen)
    if long:
        record(f"resumed from every checkpoint {' '.join(more)}".strip(), same, len(chosen))
    assert same == len(chosen)


@pytest.mark.parametrize(
    ("more", "step"),
    [
        (["--trainer.max_steps", str(EPOCHS * STEPS)], 3 * EPOCHS - 1),
        (["--trainer.max_steps", "20", "--trainer.val_check_interval", "0.5"], 3 * 5 - 1),
    ],
    ids=["at the end of an epoch", "within an epoch"],
)
def test_the_last_validation_of_a_run_that_max_steps_ends_is_made_up_for(server, options, tmp_path, more, step):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    command = ["fit", *NETWORK, *options, *more]
    assert server.run(whole, *command) == 0, output(whole)
    at = {"hook": "validation_step", "count": step, "signal": signal.SIGTERM}
    assert server.run(broken, *command, at=at) == 128 + signal.SIGTERM, output(broken)
    assert server.run(broken, *command, "--resume") == 0, output(broken)
    assert not differences(everything(only_run(whole)), everything(only_run(broken)))


def resumes_like(unbroken, server, snapshot, options, more):
    code = server.run(snapshot.parent.parent, "fit", "--ckpt_path", snapshot, *options, *more)
    assert code == 0, output(snapshot.parent.parent)
    result = everything(snapshot)
    found = differences(unbroken, result)
    print(snapshot.name, found[:5])
    return not found


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of a finished run, at the place where --resume looks for it."""
    return shutil.copytree(finished, tmp_path / "lightning_logs" / "quick" / "version_0")


def test_a_finished_run_says_so(server, copy, options, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in copy.rglob("*")}
    for command in (["--resume", *NETWORK, *options], ["--ckpt_path", copy], ["--ckpt_path", "last"]):
        assert server.run(tmp_path, "fit", *command) == 0
        assert f"is finished: {EPOCHS} epochs, {EPOCHS * STEPS} steps" in output(tmp_path)
        assert len(output(tmp_path).splitlines()) == 1
    assert {file: file.stat().st_mtime_ns for file in copy.rglob("*")} == before


def test_a_finished_run_goes_on_with_more_epochs_on_their_schedule(server, copy, options, tmp_path):
    command = ["fit", "--resume", *NETWORK, *options, "--trainer.max_epochs", EPOCHS + 1]
    assert server.run(tmp_path, *command) == 0, output(tmp_path)
    result = everything(copy)
    assert result["results"]["epochs"] == EPOCHS + 1
    assert result["results"]["steps"] == (EPOCHS + 1) * STEPS
    rates = dict(result["tensorboard"]["train/every_step/learning_rate"])
    steps, warm_up = (EPOCHS + 1) * STEPS, STEPS // 2
    for step in range(EPOCHS * STEPS, steps):
        progress = (step - warm_up) / (steps - warm_up)
        assert rates[step] == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi * progress)))


def test_the_command_line_wins_over_the_rate_of_the_checkpoint(server, copy, options, tmp_path):
    more = ["--trainer.max_epochs", EPOCHS + 1, "--model.lr", "0.5", "--model.schedule", "constant"]
    assert server.run(tmp_path, "fit", "--resume", *NETWORK, *options, *more) == 0, output(tmp_path)
    rates = dict(everything(copy)["tensorboard"]["train/every_step/learning_rate"])
    assert all(rates[step] == pytest.approx(0.5) for step in range(EPOCHS * STEPS, (EPOCHS + 1) * STEPS))


@pytest.mark.parametrize(("option", "value"), [("--model.optimizer", "adam"), ("--data.batch_size", "8")])
def test_what_cannot_change_on_the_way_is_refused(server, copy, options, tmp_path, option, value):
    more = ["--trainer.max_epochs", EPOCHS + 1, option, value]
    assert server.run(tmp_path, "fit", "--resume", *NETWORK, *options, *more) == 2
    assert f"{option} {value} contradicts the checkpoint" in output(tmp_path)


def test_nothing_to_resume(server, options, tmp_path):
    for command in (["--resume", *NETWORK, *options], ["--ckpt_path", "last"]):
        assert server.run(tmp_path, "fit", *command) == 2
        assert len(output(tmp_path).splitlines()) == 1


def test_the_newest_checkpoint_goes_by_the_word_last(server, copy, data, tmp_path):
    for folder in (tmp_path, copy):  # above the runs, and in one
        assert server.run(folder, "test", "--ckpt_path", "last", "--data.data_dir", data) == 0, output(folder)
        assert "checkpoints/last.ckpt" in output(folder)


def test_fit_tests_the_weights_that_it_saves(server, copy, data, tmp_path):
    """The averaged ones, as `vgg-lightning test` does; Lightning would take those in training."""
    assert server.run(tmp_path, "test", "--ckpt_path", copy, "--data.data_dir", data) == 0, output(tmp_path)
    accuracy = json.loads((copy / "results.json").read_text())["test_acc"]
    assert f"test accuracy  {100 * accuracy:.2f} %" in output(tmp_path)


def test_the_clock_writes_checkpoints_too(server, options, tmp_path):
    snapshots = tmp_path / "snapshots"
    more = ["--checkpoint_minutes", "0.0001", "--trainer.max_epochs", "4"]
    assert server.run(tmp_path, "fit", *NETWORK, *options, *more, snapshots=str(snapshots)) == 0, output(tmp_path)
    steps = [essence(folder / "checkpoints" / "last.ckpt")["global_step"] for folder in snapshots.glob("*_last")]
    assert any(step % STEPS for step in steps)


@pytest.mark.parametrize("option", ["--checkpoint_minutes", "--checkpoint_every_n_steps"])
def test_a_negative_interval_is_refused(server, options, tmp_path, option):
    assert server.run(tmp_path, "fit", *NETWORK, *options, option, "-1") == 2
    assert f"{option} -1" in output(tmp_path)
    assert not list(tmp_path.glob("lightning_logs/*/*"))


@pytest.mark.slow
def test_two_processes_stop_together_and_go_on_exactly(options, tmp_path):
    """With two CPU processes: a signal to the first one stops both, and the resumed run ends as an unbroken one."""
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    runs = {}
    for name in ("whole", "broken"):
        command = ["fit", "--name", name, *NETWORK, *options, *two]
        if name == "broken":
            process = launch(tmp_path, *command)
            while not list(tmp_path.glob("lightning_logs/broken/*/checkpoints/last.ckpt")):
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            text, _ = process.communicate(timeout=300)
            assert process.returncode == 143, text
            command.append("--resume")
        process = launch(tmp_path, *command)
        text, _ = process.communicate(timeout=600)
        assert process.returncode == 0, text
        (runs[name],) = tmp_path.glob(f"lightning_logs/{name}/version_*")
    assert not differences(everything(runs["whole"]), everything(runs["broken"]))
