"""`vgg-lightning serve`: a page on this machine that classifies an image.

Imports `cli` and everything below it.
"""
