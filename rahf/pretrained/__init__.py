"""Reads pretrained weights: T5X, ViT releases, Hugging Face, the PyTorch RAHF.

Training runs name them in `config.init`. Standalone use:

  source = open_source('gs://bucket/ViT-B_16.npz')  # Names, shapes, settings.
  params = load('gs://bucket/ViT-B_16.npz')  # {'vit': {'cls': …, 'Transformer': …}}

`python -m rahf.pretrained SOURCE` describes a file.
"""

from rahf.pretrained.formats import load, open_source
from rahf.pretrained.source import Source, Weight

__all__ = ['Source', 'Weight', 'load', 'open_source']
