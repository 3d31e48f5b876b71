"""Draws arrays and text as pictures, HTML and Markdown; independent of the model."""
