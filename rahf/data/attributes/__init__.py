"""Attributes of images, such as their category: questions, tables, balanced samples."""
