"""`vgg-lightning export`: a model in a form that others can open, one file for each.

Imports the project, the run kit and the ground.
"""
