"""A tiny CLIP in the format of Hugging Face, and tiny weights of a ResNet-50's form."""

import pathlib

import jax
import numpy as np
from etils import epath
from flax import linen as nn

from rahf.data.clip_tokenizer import train_vocabulary, write_vocabulary
from rahf.models.clip import CLIPConfig, TowerConfig, init_params
from rahf.pretrained.clip_export import write_huggingface

PROMPTS = (
  'a large red circle at the top left',
  'two small blue squares next to a green ring',
)
VOCABULARY = 530
TOWER = TowerConfig(width=16, layers=2, heads=2, mlp=32, gelu='exact')
CONFIG = CLIPConfig(
  image_size=32,
  patch=8,
  vision=TOWER,
  text=TOWER,
  text_length=77,
  vocab_size=VOCABULARY,
  projection=8,
)


def write(folder: pathlib.Path, config: CLIPConfig = CONFIG) -> pathlib.Path:
  """Writes the directory with random weights and returns it."""
  folder.mkdir(parents=True)
  params = nn.unbox(init_params(config, jax.random.key(0)))
  write_huggingface(epath.Path(folder), config, jax.tree.map(np.asarray, params))
  vocabulary = train_vocabulary(PROMPTS, config.vocab_size)
  write_vocabulary(epath.Path(folder), vocabulary)
  return folder
