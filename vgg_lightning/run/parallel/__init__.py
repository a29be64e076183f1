"""More than one process: who started them, how they meet, what they agree on. Lightning and torch do the work.

Imports `base`, `run.signals`, `run.collectives`, `run.checkpoints`, `run.lightning_private` and the libraries.
"""
