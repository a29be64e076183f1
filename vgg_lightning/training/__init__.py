"""How to train: optimizers and schedules by name."""
