"""How to train: optimizers, schedules, losses, metrics, averages of the weights, each by itself.

Imports `networks`, `data`, `run` and `base`.
"""
