"""File access and validation of outside input: paths, JSON, tables, locks, writes."""
