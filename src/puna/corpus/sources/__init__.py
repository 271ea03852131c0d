"""Addresses, folders, archives and streams -> raw files."""
