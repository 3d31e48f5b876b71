"""Joins labels, images and prompts by uid and writes them as a data set."""
