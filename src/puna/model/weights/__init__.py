"""Weights in and out: one adapter per outside format, and our own."""
