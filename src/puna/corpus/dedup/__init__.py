"""Duplicates: repeated lines and sentences, near-duplicates (MinHash), and books that overlap by over 90%."""
