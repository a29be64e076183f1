"""Callbacks that stop a run which has gone wrong.

Imports `base`, `run.collectives`, `run.parallel` and the libraries.
"""
