"""Raw annotations and the labels consolidated from them."""
