"""How to train: optimizers, schedules, losses, metrics, averages of the weights, each by itself.

Imports `data`, `run` and `base`. What it asks of the LightningModule is `Trained`.
"""
