"""Devices, meshes, multiple processes, signals, and trees of arrays."""
