"""Lookahead: what it does to the weights, step by step."""

from types import SimpleNamespace

import torch
from torch import nn

from vgg_lightning.training.averaging import DECAY, Lookahead


def run(values, total, steps=2, resume_at=None):
    """Let training set one weight to `values`, each a step; return the weight after every step."""
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    trainer = SimpleNamespace(estimated_stepping_batches=total, global_step=0)
    lookahead = Lookahead(steps)
    lookahead.on_train_start(trainer, module)
    seen = []
    for value in values:
        if trainer.global_step == resume_at:
            state, lookahead = lookahead.state_dict(), Lookahead(steps)
            lookahead.load_state_dict(state)
            lookahead.on_train_start(trainer, module)
        module.weight.data.fill_(value)
        trainer.global_step += 1
        lookahead.on_train_batch_end(trainer, module, None, None, 0)
        seen.append(module.weight.item())
    return seen


def test_weights_move_to_an_average_that_follows_less_and_less():
    seen = run([1.0, 2.0, 3.0, 4.0], total=4)
    first = 2.0 * (1 - DECAY**2 / 8)  # half of the run is done
    last = first * DECAY**2 + 4.0 * (1 - DECAY**2)
    torch.testing.assert_close(seen, [1.0, first, 3.0, last])


def test_the_last_step_is_averaged_too():
    seen = run([1.0, 2.0, 3.0], total=3)
    assert seen[0] == 1.0
    assert seen[2] < 3.0


def test_goes_on_between_two_averages():
    values = [1.0, 5.0, 2.0, 4.0, 3.0]
    for step in range(1, 5):
        assert run(values, total=5, resume_at=step) == run(values, total=5)
