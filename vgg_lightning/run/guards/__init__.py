"""Callbacks that stop a run on an error.

Imports `base`, `run.collectives`, `run.parallel` and the libraries.
"""
