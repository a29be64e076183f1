"""Fashion-MNIST: files, batches, transforms, and the LightningDataModule that joins them.

Imports `base` and the libraries.
"""
