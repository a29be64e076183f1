"""The version, apart so that nothing else is imported to tell it."""

__version__ = "0.1.0"
ADDRESS = ""  # of the repository. Empty: it is not public yet. tests/test_install.py says where it belongs.
