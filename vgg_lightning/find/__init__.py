"""`vgg-lightning find`: a learning rate or a batch size before a run.

Imports `cli` and everything below it.
"""
