"""Scores and filters of documents."""
