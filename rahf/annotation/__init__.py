"""People who label images."""
