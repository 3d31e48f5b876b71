"""Using a trained model: the directory it is exported to, and what it answers."""
