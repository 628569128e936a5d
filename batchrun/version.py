"""The one place where batchrun's version stands."""

__version__ = "0.1.0"
