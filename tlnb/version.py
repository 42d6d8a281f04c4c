"""The version, alone in a file that the build reads and every part may import."""

__version__ = "0.2.0"
