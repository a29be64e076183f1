"""Lightning's loggers for TensorBoard and metrics.csv, which outlive a full disk and a resumed run.

Imports the libraries alone.
"""
