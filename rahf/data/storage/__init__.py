"""Prepared data sets on disk: records, manifests and cached indexes."""
