"""Puna: the LLaMA system, runnable: raw public data to a measured language model."""

__version__ = "0.1.0"
