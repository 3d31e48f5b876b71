"""Decodes images: file formats, colours, metadata, and user inputs of any kind."""
