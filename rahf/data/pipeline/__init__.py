"""Prepared records to batches on devices."""
