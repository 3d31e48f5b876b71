"""Metrics on NumPy arrays: saliency maps, score correlation, keywords."""
