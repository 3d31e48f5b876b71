"""Directories of aMUSEd that diffusers wrote: sizes, weights, and what does not fit.

Needs the extra `parity`.
"""

import json
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rahf.errors import InputError
from rahf.models import muse
from rahf.pretrained import open_source

REASON = 'needs PyTorch, transformers and diffusers: pip install "rahf[parity]"'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)
diffusers = pytest.importorskip('diffusers', reason=REASON)

# After torch is known to be here.
from tiny_amused import OPTIONS, pipeline  # noqa: E402


def test_public_sizes():
  """Counted without allocating: aMUSEd's own are 603 and 608 million."""
  config = transformers.CLIPTextConfig(
    **{'hidden_size': 768, 'intermediate_size': 3072, 'projection_dim': 768},
    **{'num_hidden_layers': 12, 'num_attention_heads': 12},
  )
  with torch.device('meta'):
    encoder = transformers.CLIPTextModelWithProjection(config)
    vqvae = diffusers.VQModel(
      block_out_channels=[128, 256, 256, 512, 768],
      down_block_types=['DownEncoderBlock2D'] * 5,
      up_block_types=['UpDecoderBlock2D'] * 5,
      layers_per_block=2,
      latent_channels=64,
      num_vq_embeddings=8192,
      mid_block_add_attention=False,
    )
    for name, large in (('amused-256', False), ('amused-512', True)):
      transformer = diffusers.UVit2DModel(downsample=large, upsample=large)
      parts = {'autoencoder': vqvae, 'transformer': transformer, 'text': encoder}
      params = muse.abstract_params(muse.SIZES[name])
      for part, theirs in parts.items():
        ours = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params[part]))
        assert ours == sum(p.numel() for p in theirs.parameters()), part


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  folder = tmp_path_factory.mktemp('small')
  pipeline(folder, **OPTIONS['amused-256'])
  return folder


def test_what_a_directory_says(directory):
  source = open_source(directory)
  assert source.kind == 'aMUSEd'
  assert source.licence == 'openrail++, as its README.md states.'
  assert source.settings['muse.autoencoder.widths'] == (8, 16, 16)
  assert source.settings['muse.image_size'] == 16
  assert not source.ignored


@pytest.mark.parametrize(
  ('part', 'change', 'message'),
  [
    (
      'transformer',
      lambda arrays: arrays.pop('mlm_layer.conv1.weight'),
      r'transformer/logits_in/kernel \[24, 12\] is missing',
    ),
    (
      'transformer',
      lambda arrays: arrays.update(extra=np.zeros(3, np.float32)),
      r'extra \[3\] has no place in the model',
    ),
    (
      'vqvae',
      lambda arrays: arrays.update({'quant_conv.bias': np.zeros(7, np.float32)}),
      r'quant_conv.bias \[7\] should have the shape \[6\] of '
      'autoencoder/quant_conv/bias',
    ),
    (
      'vqvae',
      lambda arrays: arrays.update({'quant_conv.bias': np.zeros(6, np.int64)}),
      r'quant_conv.bias is of int64, but .* must be floats',
    ),
    (
      'vqvae',
      lambda arrays: arrays.update(
        {'encoder.down_blocks.2.resnets.2.norm1.bias': np.zeros(16, np.float32)}
      ),
      r'norm1.bias \[16\] has no place in the model \(as autoencoder/encoder/',
    ),
  ],
)
def test_arrays_that_do_not_fit(directory, part, change, message):
  path = directory / part / 'diffusion_pytorch_model.safetensors'
  before = path.read_bytes()
  arrays = load_file(path)
  change(arrays)
  save_file(arrays, path)
  with pytest.raises(InputError, match=message):
    open_source(directory)
  path.write_bytes(before)


def test_sizes_of_another_config(directory):
  path = directory / 'transformer' / 'config.json'
  before = path.read_text()
  path.write_text(json.dumps(json.loads(before) | {'intermediate_size': 22}))
  with pytest.raises(
    InputError,
    match=r'\[20, 16\] should have the shape \[22, 16\] of transformer',
  ):
    open_source(directory)
  path.write_text(before)
