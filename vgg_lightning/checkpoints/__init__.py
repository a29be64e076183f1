"""Checkpoints: found, verified and opened without running anything that they hold."""
