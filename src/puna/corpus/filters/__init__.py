"""Filters of documents, and the scores that they use."""
