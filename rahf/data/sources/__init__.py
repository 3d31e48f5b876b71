"""Images with their prompts, streamed from folders, tables, tars and TFRecords."""
