"""Verification and statistics of prepared data sets."""
