"""Lightning's loggers for TensorBoard and metrics.csv, which outlive a full disk and a resumed run.

Imports `run.lightning_private`, `run.tensorboard_private` and the libraries.
"""
