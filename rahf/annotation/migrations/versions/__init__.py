"""One file for each version of the store, oldest first."""
