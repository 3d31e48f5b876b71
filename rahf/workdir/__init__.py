"""What a run leaves on disk: its lock, checkpoints, and the log of metrics."""
