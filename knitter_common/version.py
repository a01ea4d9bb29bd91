"""The version of all components; they are released together."""

__version__ = "0.1.0"
