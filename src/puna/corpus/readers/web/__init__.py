"""Web pages, by themselves and in archives."""
