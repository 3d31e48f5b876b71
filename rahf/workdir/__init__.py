"""The work directory of a run: its lock, checkpoints and metrics log."""
