"""Image files to pixels: decoding, colours, metadata, and what users pass."""
