"""Values of config.json, and files that do not belong to the weights."""

import pytest

from hf_files import POINTER, T5, VIT, t5_arrays, vit_arrays, write
from rahf.errors import InputError
from rahf.pretrained.huggingface import open_huggingface


@pytest.fixture
def folder(tmp_path):
  return tmp_path / 'model'


@pytest.mark.parametrize(
  'fields', [{}, {'patch_size': [2, 2]}, {'image_size': [4, 4], 'patch_size': [2, 2]}]
)
def test_squares_may_be_given_as_height_and_width(folder, fields):
  source = open_huggingface(write(folder, VIT | fields, vit_arrays()))
  assert source.settings == {
    'vit.patch': 2,
    'vit.width': 8,
    'vit.layers': 1,
    'vit.heads': 2,
    'vit.mlp': 12,
    'vit.class_token': True,
    'vit.norm_epsilon': 1e-12,
    'vit.gelu': 'exact',
  }


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image_size': [2, 8]}, r'image_size is \[2, 8\]; only squares can be read'),
    ({'image_size': 8}, r'image_size 8 and patch_size 2 make 17 tokens, .* for 5'),
    ({'image_size': None}, r'image_size 224 and patch_size 2 make 12545 tokens'),
    ({'patch_size': 4}, r'patch_size is 4, but the weights have 2'),
    ({'patch_size': None}, r'patch_size is 16, but the weights have 2'),
    ({'hidden_size': 16}, r'hidden_size is 16, but the weights have 8'),
    ({'num_hidden_layers': None}, r'num_hidden_layers is 12 by default, but .* have 1'),
    ({'intermediate_size': None}, r'intermediate_size is 3072 by default, but'),
    ({'num_attention_heads': 0}, r'num_attention_heads is 0, but should be a whole'),
  ],
)
def test_a_config_with_other_sizes_is_an_error(folder, fields, message):
  with pytest.raises(InputError, match=message):
    open_huggingface(write(folder, VIT | fields, vit_arrays()))


@pytest.mark.parametrize(
  ('config', 'message'),
  [
    (
      T5 | {'model_type': 'umt5'},
      "model_type is 'umt5'; only vit, t5, clip and resnet can be read",
    ),
    (
      T5 | {'model_type': ['t5']},
      r"model_type is \['t5'\]; only vit, t5, clip and resnet can be read",
    ),
    (T5 | {'model_type': None}, r'config.json: there is no model_type, .* --workdir'),
    (
      T5 | {'feed_forward_proj': 'gated-silu'},
      "feed_forward_proj is 'gated-silu'; only relu and gated-gelu can be read",
    ),
    (
      T5 | {'feed_forward_proj': 'gated-gelu'},
      r"is 'gated-gelu', but the weights have",
    ),
    (T5 | {'dense_act_fn': 'silu'}, "dense_act_fn is 'silu'; only 'relu' can be read"),
    (T5 | {'is_gated_act': True}, 'is_gated_act is True; only False can be read'),
    (T5 | {'tie_word_embeddings': 'no'}, "is 'no', but should be true or false"),
    (T5 | {'num_layers': 2}, 'num_layers is 2, but the weights have 1; use the config'),
    (T5 | {'num_decoder_layers': 2}, 'num_decoder_layers is 2, but the weights have 1'),
    (T5 | {'d_ff': '12'}, "d_ff is '12', but should be a whole number above 0"),
    (T5 | {'num_heads': True}, 'num_heads is True, but should be a whole number'),
    (T5 | {'relative_attention_num_buckets': 64}, 'num_buckets is 64; only 32'),
    (T5 | {'relative_attention_max_distance': 64}, 'max_distance is 64; only 128'),
    (T5 | {'layer_norm_epsilon': 1e-5}, r'epsilon is 1e-05; only 1e-06'),
    (
      {k: v for k, v in T5.items() if k != 'd_kv'},
      'config.json: d_kv is 64 by default, but the weights have 2',
    ),
    (T5 | {'d_kv': None}, 'd_kv is 64 by default, but the weights have 2'),
    (
      VIT | {'hidden_act': 'silu'},
      "hidden_act is 'silu'; only gelu, gelu_new, gelu_fast and",
    ),
    (VIT | {'patch_size': [2, 4]}, r'patch_size is \[2, 4\]; only squares can be read'),
    (VIT | {'patch_size': [2, 2, 2]}, 'patch_size is .* one or two whole numbers'),
    (VIT | {'patch_size': '2'}, "patch_size is '2', but should be one or two whole"),
    (VIT | {'layer_norm_eps': '1e-6'}, "layer_norm_eps is '1e-6', but should be a num"),
    (VIT | {'qkv_bias': False}, 'qkv_bias is False; only True'),
    (VIT | {'num_channels': 1}, 'num_channels is 1; only 3'),
    (VIT, r'SelfAttention.k.weight \[6, 8\] has no place in the model'),
  ],
)
def test_other_models_are_refused(folder, config, message):
  with pytest.raises(InputError, match=message):
    open_huggingface(write(folder, config, t5_arrays()))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'{"model_type": "t5",', r'config.json is not JSON: Expecting'),
    (b'{"model_type": "\xff"}', r"config.json is not JSON: 'utf-8' codec"),
    (b'[]', r'config.json contains list, not a JSON object'),
    (POINTER, r'config.json is a Git LFS pointer, not the data: run `git lfs pull`'),
  ],
)
def test_a_damaged_config_is_an_error(folder, text, message):
  write(folder, T5, t5_arrays())
  (folder / 'config.json').write_bytes(text)
  with pytest.raises(InputError, match=message):
    open_huggingface(folder)
