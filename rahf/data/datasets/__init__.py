"""Builders of data sets in the schema of `rahf.data.schema`."""
