"""The network: Flax Linen modules, no data and no TensorFlow."""
