"""Data sets in the one schema of `rahf.data.schema`."""
