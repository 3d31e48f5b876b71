"""The HTTP service: takes requests one by one and scores them in batches."""
