"""The HTTP service: accepts single requests and scores them in batches."""
