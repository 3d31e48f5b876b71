"""Checks and descriptions of prepared data sets."""
