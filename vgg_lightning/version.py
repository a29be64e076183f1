"""The version, apart so that nothing else is imported to tell it."""

__version__ = "0.1.0"
