"""Image files of any kind: opened safely, made like those of the data set, read from a folder.

Imports `base` and `data.sources.catalogue`.
"""
