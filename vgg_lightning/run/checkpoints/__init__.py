"""Checkpoints: sealed, written, found, read and resumed from, without running anything that they hold.

Imports `base`, `run.signals`, `run.collectives`, `run.lightning_private` and the libraries.
"""
