"""The service: requests one by one over HTTP, joined to batches for the model."""
