"""What `make bench` measures: parts, works, contenders, and the goals of the project."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peers.bare import TRICKS

PROJECT = "project"
BEFORE = "before"  # this project as it was at commit `COMMIT`, in a worktree, in its own defaults
COMMIT = "c70e37a"
BARE = "bare"
PEERS = ("d2l_book", "plain_torch", "plain_lightning", "fastai_learner", "keras_model")
NO_PICTURES = ("keras_model",)  # Keras has no loader of its own: its fit takes the arrays


@dataclass(frozen=True)
class Row:
    """One thing to measure with several contenders in turn.

    Args:
        part: the part of the benchmark.
        work: a key of `WORKS`.
        contenders: in the order of a round; the first is what the others are compared with.
        measure: of the figures, the one that is compared: "wall", "step", "seconds" or "share".
        goals: the least ratio to a contender, or for a measure "share" and "seconds" of the first, its bound.
        rounds: at most so many; contenders beyond the second have one, unless they have a goal.
        cost: seconds that one measurement takes, roughly, on two cores of 2023.
    """

    part: str
    work: str
    contenders: tuple[str, ...]
    measure: str = "wall"
    goals: tuple[tuple[str, float], ...] = ()
    rounds: int = 99
    cost: float = 12.0

    def rounds_of(self, contender: str) -> int:
        """Return how often a contender is measured at most."""
        few = contender in self.contenders[2:] and contender not in dict(self.goals)
        return 1 if few and self.part != "tricks" else self.rounds


ALL = (PROJECT, *PEERS)
LOADING = (PROJECT, *(peer for peer in PEERS if peer not in NO_PICTURES))
WITHOUT_KERAS = (PROJECT, "d2l_book", "plain_torch", "plain_lightning", "fastai_learner")
BOOK = (PROJECT, "d2l_book")

ROWS: tuple[Row, ...] = (
    Row("start", "help", ("help",), "seconds", (("help", 1.0),), cost=0.3),
    Row("start", "first step", ("first_step", "import"), "seconds", (("import", 1.3),), cost=6),
    Row("load", "lenet-28", LOADING, goals=(("d2l_book", 50.0),), cost=7),
    Row("load", "vgg11-r4-96", LOADING, goals=(("d2l_book", 8.0),), cost=7),
    Row("load", "vgg11-r4-224", LOADING, goals=(("d2l_book", 5.0),), cost=7),
    Row("overhead", "quick", (BARE, PROJECT), goals=((PROJECT, 1.02),), cost=14),
    Row("overhead", "lenet-28", (BARE, PROJECT), goals=((PROJECT, 1.05),), cost=10),
    Row("efficiency", "quick", (BARE,), "share", cost=12),
    Row("efficiency", "vgg11-r4-32", (BARE,), "share", goals=((BARE, 0.55),), cost=12),
    Row("efficiency", "vgg11-r1-32", (BARE,), "share", goals=((BARE, 0.75),), cost=18),
    Row("efficiency", "vgg11-r4-96", (BARE,), "share", rounds=2, cost=15),
    Row("predict", "quick", ALL, goals=(("plain_torch", 5.0),), cost=10),
    Row("predict", "lenet-28", WITHOUT_KERAS, goals=(("plain_torch", 5.0),), cost=7),
    Row("predict_bf16", "quick", ("project_bf16", "plain_torch", PROJECT), goals=(("plain_torch", 2.5),), cost=10),
    Row("int8", "vgg11-r1-32", ("onnx_int8", PROJECT), goals=((PROJECT, 3.0),), rounds=2, cost=40),
    Row("train", "vgg11-r4-96", ALL, goals=(("d2l_book", 1.6),), cost=13),
    Row("train", "vgg11-r16-224", ALL, goals=(("d2l_book", 2.5),), cost=12),
    Row("train", "quick", ALL, cost=12),
    Row("train", "lenet-28", WITHOUT_KERAS, rounds=2, cost=10),
    Row("train", "resnet18-28", BOOK, rounds=2, cost=11),
    Row("train", "googlenet-96", BOOK, rounds=1, cost=14),
    Row("train", "densenet-96", BOOK, rounds=1, cost=20),
    Row("train", "alexnet-224", (PROJECT,), rounds=1, cost=20),
    Row("train", "nin-224", (PROJECT,), rounds=1, cost=20),
    Row("train", "vgg11-r4-224", BOOK, goals=(("d2l_book", 1.8),), rounds=2, cost=26),
    Row("epoch", "quick", (PROJECT, "plain_torch"), "seconds", rounds=2, cost=45),
)
SINCE: tuple[Row, ...] = (  # beside the project as it was; the goals are floors
    Row("command", "quick", (PROJECT, BEFORE), "seconds", ((BEFORE, 1.3),), rounds=5, cost=130),
    Row("command", "speedrun", (PROJECT, BEFORE), "seconds", ((BEFORE, 1.4),), rounds=5, cost=35),
    Row("command", "speedrun94", (PROJECT, BEFORE), "seconds", ((BEFORE, 1.5),), rounds=5, cost=400),
    *(
        Row("since", work, (PROJECT, BEFORE), goals=((BEFORE, goal),) if goal else (), rounds=5, cost=26)
        for work, goal in (
            *(("vgg11-r4-96-bf16", 1.9), ("vgg11-r4-224-bf16", 2.0), ("vgg11-r16-224-bf16", 1.45)),
            *(("resnet18-28-bf16", 0), ("googlenet-96-bf16", 0), ("densenet-96-bf16", 0)),
            *(("vgg11-r4-96", 1.05), ("vgg11-r4-224", 1.05), ("lenet-28", 0)),
        )
    ),
)
EXTRA: tuple[Row, ...] = (  # only if asked for
    *SINCE,
    *(
        Row("tricks", work, (BARE, *(f"{BARE}:{trick}" for trick in TRICKS)), cost=15)
        for work in ("quick", "vgg11-r4-96", "vgg11-r16-224", "lenet-28")
    ),
)
PARTS = tuple(dict.fromkeys(row.part for row in (*ROWS, *EXTRA)))
