"""Shapes: a generated data set for trying everything without downloads."""
