"""The training step: loss, optimizer, state and their setup on a mesh."""
