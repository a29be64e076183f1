"""The version, in a separate module without imports."""

__version__ = "0.1.0"
ADDRESS = ""  # of the repository. Empty: it is not public yet. tests/test_install.py says where it belongs.
