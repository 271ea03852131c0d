"""Formats that hold text as it is: books, lines, rows, posts."""
