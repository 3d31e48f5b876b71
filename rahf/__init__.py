"""RAHF: rich human feedback for text-to-image generation, in JAX."""

__version__ = '0.1.0'
