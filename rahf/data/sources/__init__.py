"""Streams images with prompts from folders, tables, tar archives and TFRecords."""
