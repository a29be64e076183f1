"""Lightning's loggers for TensorBoard and metrics.csv, which survive a full disk and resume with the run.

Imports `run.lightning_private`, `run.tensorboard_private` and the libraries.
"""
