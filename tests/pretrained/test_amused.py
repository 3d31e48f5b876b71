"""What is refused of an aMUSEd's directory before its arrays are read."""

import copy
import json

import pytest

from rahf.errors import InputError
from rahf.pretrained import open_source
from rahf.pretrained.amused import _licence

VOCABULARY = {'!': 0, '<|startoftext|>': 10, '<|endoftext|>': 11}
# Relative path -> fields, of a small model.
FILES = {
  'model_index.json': {
    '_class_name': 'AmusedPipeline',
    'scheduler': ['diffusers', 'AmusedScheduler'],
    'text_encoder': ['transformers', 'CLIPTextModelWithProjection'],
    'tokenizer': ['transformers', 'CLIPTokenizer'],
    'transformer': ['diffusers', 'UVit2DModel'],
    'vqvae': ['diffusers', 'VQModel'],
  },
  'scheduler/scheduler_config.json': {
    '_class_name': 'AmusedScheduler',
    'mask_token_id': 39,
  },
  'text_encoder/config.json': {
    'model_type': 'clip_text_model',
    'vocab_size': 12,
    'eos_token_id': 11,
    'hidden_size': 768,
    'projection_dim': 768,
  },
  'tokenizer/special_tokens_map.json': {'pad_token': '!'},
  'tokenizer/vocab.json': VOCABULARY,
  'transformer/config.json': {
    '_class_name': 'UVit2DModel',
    'vocab_size': 40,
    'codebook_size': 32,
  },
  'vqvae/config.json': {
    '_class_name': 'VQModel',
    'block_out_channels': [32, 32],
    'down_block_types': ['DownEncoderBlock2D'] * 2,
    'up_block_types': ['UpDecoderBlock2D'] * 2,
    'latent_channels': 8,
    'num_vq_embeddings': 32,
    'mid_block_add_attention': False,
    'lookup_from_codebook': True,
  },
}
VQ, UVIT, TEXT, INDEX = (
  'vqvae/config.json',
  'transformer/config.json',
  'text_encoder/config.json',
  'model_index.json',
)


def write(folder, path=None, **fields):
  """Writes the directory, with other fields in one file; None leaves a field out."""
  files = copy.deepcopy(FILES)
  if path:
    files[path] |= fields
  for name, content in files.items():
    content = {key: value for key, value in content.items() if value is not None}
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
  ('path', 'fields', 'message'),
  [
    (INDEX, {'_class_name': 'FluxPipeline'}, "'FluxPipeline'; only AmusedPipeline"),
    (INDEX, {'vqvae': ['diffusers', 'AutoencoderKL']}, 'only the class VQModel'),
    (INDEX, {'transformer': None}, 'transformer is None; only the class UVit2DModel'),
    (VQ, {'_class_name': 'AutoencoderKL'}, "_class_name is 'AutoencoderKL'"),
    (VQ, {'norm_type': 'spatial'}, "norm_type is 'spatial'; only 'group'"),
    (VQ, {'mid_block_add_attention': None}, r'attention is True by default; only F'),
    (VQ, {'lookup_from_codebook': False}, 'lookup_from_codebook is False; only True'),
    (VQ, {'vq_embed_dim': 4}, 'vq_embed_dim is 4; only 8 can be read'),
    (VQ, {'act_fn': 'relu'}, "act_fn is 'relu'; only 'silu'"),
    (VQ, {'up_block_types': ['AttnUpDecoderBlock2D'] * 2}, 'up_block_types is'),
    (VQ, {'block_out_channels': 32}, 'should be whole numbers'),
    (VQ, {'block_out_channels': [32, 40]}, 'a width of 40, which its 32 heads or'),
    (UVIT, {'use_bias': True}, 'use_bias is True; only False can be read'),
    (UVIT, {'ln_elementwise_affine': False}, 'affine is False; only True'),
    (UVIT, {'downsample': True}, 'upsample is False by default; only True'),
    (UVIT, {'micro_cond_embed_dim': 640}, 'micro_cond_embed_dim is 640; only 1280'),
    (UVIT, {'micro_cond_encode_dim': 25}, 'micro_cond_encode_dim is 25; only 24'),
    (UVIT, {'codebook_size': 16}, 'codebook_size is 16, but must be 32'),
    (UVIT, {'hidden_size': '16'}, 'should be a whole number above 0'),
    (TEXT, {'model_type': 'clip'}, "model_type is 'clip'; only 'clip_text_model'"),
    (TEXT, {'hidden_act': 'relu'}, "hidden_act is 'relu'; only quick_gelu"),
    (TEXT, {'eos_token_id': 7}, 'eos_token_id is 7; only the last token, 11, can be'),
    (
      'scheduler/scheduler_config.json',
      {'mask_token_id': 32},
      'mask_token_id is 32; only 39 can be read',
    ),
    (
      'scheduler/scheduler_config.json',
      {'masking_schedule': 'pow'},
      "masking_schedule is 'pow'; only cosine and linear",
    ),
    (
      'tokenizer/special_tokens_map.json',
      {'pad_token': {'content': '?'}},
      r"special_tokens_map.json: pad_token is '\?', which is no token",
    ),
    # Nothing else is wrong.
    (None, {}, r'vqvae has neither diffusion_pytorch_model.safetensors nor'),
  ],
)
def test_other_architectures(tmp_path, path, fields, message):
  write(tmp_path, path, **fields)
  with pytest.raises(InputError, match=message):
    open_source(tmp_path)


def test_missing_parts(tmp_path):
  write(tmp_path)
  (tmp_path / 'scheduler/scheduler_config.json').unlink()
  with pytest.raises(InputError, match=r'scheduler_config.json is missing; download'):
    open_source(tmp_path)


@pytest.mark.parametrize(
  ('card', 'licence'),
  [
    ('---\nlicense: openrail++\n---\n# x', 'openrail++, as its README.md states.'),
    (
      '---\ntags:\n- art\nlicense: other\nlicense_name: "mine"\n---\n',
      'other, mine, as its README.md states.',
    ),
    ('---\nlicense:\n- mit\nother: x\n---\n', 'mit, as its README.md states.'),
    ('---\ntags: []\n---\nlicense: mit\n', ''),
    ('# No front matter\n', ''),
    (None, ''),
  ],
)
def test_licence_of_a_card(tmp_path, card, licence):
  path = tmp_path / 'README.md'
  if card is not None:
    path.write_text(card)
  assert _licence(path) == licence
