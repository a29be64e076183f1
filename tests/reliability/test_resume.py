"""A run that is broken anywhere and resumed ends bit for bit as if it had not been."""

import random
import shutil
import signal

import pytest
from harness import (
    EPOCHS,
    NETWORK,
    STEPS,
    differences,
    everything,
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
    if code == 2 and "no run with a valid checkpoint" in output(folder):
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
    steps = [step for step, _ in result["tensorboard"]["train_loss_step"]]
    assert steps == list(range(EPOCHS * STEPS))  # each once, none missing


def test_killed_with_a_whitening_stem_and_lookahead(server, options, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    network = ["--model.network", "whitened_vgg", "--model.ratio", "32", "--model.tta", "flip"]
    command = ["fit", *network, *options, "--model.lookahead_steps", "3", "--checkpoint_every_n_steps", "1"]
    assert server.run(whole, *command) == 0, output(whole)
    for launch in range(2):  # killed in steps 6 and 11: between two averages
        at = {"hook": "training_step", "count": 6, "signal": signal.SIGKILL}
        assert server.run(broken, *command, *(["--resume"] if launch else []), at=at) == -signal.SIGKILL
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
    ],
    ids=["plain", "accumulate", "validate twice", "adam", "no validation", "max_steps"],
)
def test_resume_from_every_checkpoint(long, server, options, tmp_path, more):
    whole = tmp_path / "whole"
    whole.mkdir()
    command = ["fit", *NETWORK, *options, *more, "--checkpoint_every_n_steps", "1"]
    snapshots = tmp_path / "snapshots"
    assert server.run(whole, *command, snapshots=str(snapshots)) == 0, output(whole)
    unbroken = everything(only_run(whole))
    found = sorted(snapshots.iterdir())
    chosen = found if long else random.Random(SEED).sample(found, 3)
    same = sum(resumes_like(unbroken, server, snapshot, options, more) for snapshot in chosen)
    if long:
        record(f"resumed from every checkpoint {' '.join(more)}".strip(), same, len(chosen))
    assert same == len(chosen)


def resumes_like(unbroken, server, snapshot, options, more):
    code = server.run(snapshot.parent.parent, "fit", "--ckpt_path", snapshot, *options, *more)
    assert code == 0, output(snapshot.parent.parent)
    result = everything(snapshot)
    found = differences(unbroken, result)
    print(snapshot.name, found[:5])
    return not found
