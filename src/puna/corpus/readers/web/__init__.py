"""Web pages in HTML files and in web archives."""
