"""The run kit: what makes any Lightning run safe, visible and able to grow.

It knows no network, no data set and no model of this project. Imports `base` and the libraries.
"""
