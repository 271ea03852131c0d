"""Dumps of wikis."""
