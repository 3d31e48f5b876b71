"""Weights of other projects: T5X, ViT releases, Hugging Face, the PyTorch RAHF.

A training run names them in `config.init`. Alone:

  source = open_source('gs://bucket/ViT-B_16.npz')  # Names, shapes, settings.
  params = load('gs://bucket/ViT-B_16.npz')  # {'vit': {'cls': …, 'Transformer': …}}

`python -m rahf.pretrained SOURCE` says what a file is.
"""

from rahf.pretrained.formats import load, open_source
from rahf.pretrained.source import Source, Weight

__all__ = ['Source', 'Weight', 'load', 'open_source']
