"""Pairs of images of which people preferred one."""
