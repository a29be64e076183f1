"""Fashion-MNIST: files, batches, transforms, and the LightningDataModule that joins them."""
