"""Options that work alone work together: pairs and triples of them, drawn, run, and held against arithmetic.

`make test-reliability` draws anew and prints the seed; VGG_LIGHTNING_DRAWS=SEED repeats its draws.
"""

import os
import time
from pathlib import Path

import arithmetic
import harness
import pytest
import torch
from draws import VALUES, draws
from running import SIZES, Runner

SEED, FEW, MANY = 2304, 30, 300  # these 30 have most options, both ways of resuming and no compiler to load
VARIABLE = "VGG_LIGHTNING_DRAWS"


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    torch.set_num_threads(1)
    started = []

    def ranks(folder, args, request):
        if not started:
            started.append(harness.Server(Path(__file__).with_name("ranks.py")))
        code = started[0].run(folder, *args, **request)
        return code, harness.output(folder)

    yield Runner(tmp_path_factory.mktemp("draws"), ranks)
    for server in started:
        server.process.stdin.close()
        server.process.wait()


def refused(draw):
    options = draw.arguments()
    return arithmetic.is_refused(options, SIZES[options["--data.dataset"]])


@pytest.mark.parametrize("seed", range(20))
def test_a_campaign_draws_every_value_three_times_and_few_that_are_refused(seed):
    drawn = list(draws(MANY, seed))
    times = {value: sum(draw.values.get(value[0]) == value[1] for draw in drawn) for value in VALUES}
    assert min(times.values()) >= 3, min(times.items(), key=lambda item: item[1])
    assert all(len(draw.values) in (2, 3) for draw in drawn)
    assert sum(map(refused, drawn)) <= MANY / 5
    assert sum(map(refused, drawn[:FEW])) <= FEW / 5
    assert drawn == list(draws(MANY, seed))


def test_other_seeds_draw_others():
    assert list(draws(FEW, 1)) != list(draws(FEW, 2))


def campaign(runner, count, seed):
    """Run so many draws; return what was wrong with each that failed, and how many were refused."""
    failed, refusals = {}, 0
    for number, draw in enumerate(draws(count, seed)):
        begin = time.monotonic()
        turned_down, faults = runner.examine(draw)
        refusals += turned_down
        print(f"{number:3} {time.monotonic() - begin:5.1f} s {draw.network}, {draw.values}", "refused" * turned_down)
        print(*faults[:6], sep="\n", flush=True)
        if faults:
            failed[number] = faults
    return failed, refusals


def report(failed):
    return "\n".join(f"{number}: {fault}" for number, faults in failed.items() for fault in faults[:3])


def test_thirty_draws(runner):
    failed, refusals = campaign(runner, FEW, SEED)
    assert not failed, report(failed)
    assert refusals <= FEW / 5


@pytest.mark.slow
def test_three_hundred_draws(runner):
    seed = int(os.environ.get(VARIABLE) or time.time_ns() % 1_000_000)
    print(f"repeat with {VARIABLE}={seed}")
    failed, refusals = campaign(runner, MANY, seed)
    harness.record(f"drawn pairs and triples of options, {refusals} of them refused", MANY - len(failed), MANY, seed)
    assert not failed, f"{VARIABLE}={seed}\n{report(failed)}"
    assert refusals <= MANY / 5
