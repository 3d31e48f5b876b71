"""The input pipeline: from prepared records to batches on devices."""
