"""The run kit: what makes any Lightning run safe, visible and able to grow.

It knows no network, no data set and no Classifier. Imports `base` and the libraries.
"""
