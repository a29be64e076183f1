"""Processes that meet, here as threads: who has not come, and who has something else, is named to all."""

import socket
import threading

import pytest

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.process import seat
from vgg_lightning.run.parallel.rendezvous import PATIENCE, Meeting, facts, patience


def facts_of(checksum, **model):
    return facts({"train": checksum}, {"model": model})


def meet(own, world_size=None, share=False):
    """Let a process with each of these facts come; return what each is told."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told, meetings = {}, []

    def come(rank):
        try:
            meeting = Meeting(rank, world_size or len(own), "127.0.0.1", port)
            meetings.append(meeting)  # as a run keeps it
            told[rank] = meeting.share("run folder", lambda: f"made by {rank}") if share else "welcome"
            meeting.compare(own[rank])
        except UserError as error:
            told[rank] = str(error) if error.everywhere else f"one of them alone: {error}"

    threads = [threading.Thread(target=come, args=(rank,)) for rank in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return told


@pytest.fixture
def hurry(monkeypatch):
    monkeypatch.setenv(PATIENCE, "0.5")


def test_equal_ones_are_welcome():
    own = facts_of("abc", lr=0.1)
    assert meet({0: own, 1: own, 2: own}) == {0: "welcome", 1: "welcome", 2: "welcome"}


def test_the_first_one_says_where_the_run_writes():
    assert meet({0: {}, 1: {}}, share=True) == {0: "made by 0", 1: "made by 0"}


@pytest.mark.parametrize(("other", "name"), [(facts_of("abd", lr=0.1), "data"), (facts_of("abc", lr=1), "options")])
def test_the_one_that_differs_is_named_to_all(other, name):
    own = facts_of("abc", lr=0.1)
    told = meet({0: own, 1: own, 2: other})
    assert all(text.startswith(f"rank 2 has other {name} than rank 0") for text in told.values())


def test_those_who_do_not_come_are_named(hurry):
    told = meet({0: {}, 2: {}}, world_size=4)
    assert all("2 of 4 processes have come within 0.5 s, ranks 1, 3 not" in text for text in told.values())


def test_a_first_one_who_does_not_come_is_named(hurry):
    assert meet({1: {}}, world_size=2)[1].startswith("rank 0 has not come to 127.0.0.1, port")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_patience_is_a_number_of_seconds(text, monkeypatch):
    monkeypatch.setenv(PATIENCE, text)
    with pytest.raises(UserError, match=f"{PATIENCE} {text} is out of range"):
        patience()


def test_a_process_knows_its_seat(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert seat() == (0, 0, 1, 1, "")
    slurm = {"NTASKS": "4", "NTASKS_PER_NODE": "2", "NNODES": "2", "PROCID": "3", "LOCALID": "1", "JOB_NAME": "vgg"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert seat() == (3, 1, 4, 2, "slurm")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name, value in {"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert seat() == (1, 0, 2, 1, "torchrun")
