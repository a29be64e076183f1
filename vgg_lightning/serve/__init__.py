"""`vgg-lightning serve`: a local page that classifies an image.

Imports `cli` and everything below it.
"""
