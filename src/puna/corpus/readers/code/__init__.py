"""Source code of packages and repositories."""
