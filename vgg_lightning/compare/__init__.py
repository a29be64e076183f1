"""`vgg-lightning compare`: what networks cost, computed, measured and scaled up.

Imports `cli`, `networks`, `run` and `base`.
"""
