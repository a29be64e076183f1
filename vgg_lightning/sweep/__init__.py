"""Searches for good options, on Optuna: a space, a study that survives a kill, one process for each trial.

Imports `cli` and everything below it.
"""
