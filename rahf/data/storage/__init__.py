"""Prepared data sets on disk: records, manifests, what is derived from them."""
