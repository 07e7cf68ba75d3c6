"""Small tables: read, joined, grouped and written."""
