"""Duplicates at three grains: repeated lines (CCNet), near-duplicate documents (MinHash), books that overlap
by more than 90%."""
