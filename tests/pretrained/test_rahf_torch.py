"""The PyTorch RAHF: with its weights, our model equals the original."""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import rahf_torch
from golden_torch import SHARED, read_golden, tensors, texts, weight
from rahf.config import default_config, model_config
from rahf.errors import InputError
from rahf.models.rahf import MAPS, RAHF, SCORES, Outputs, RAHFConfig
from rahf.pretrained import loading
from rahf.pretrained.rahf_torch import LICENCE, open_rahf_torch
from rahf.pretrained.source import Source
from torch_files import View, constant, contiguous, write_state_dict

# With the tanh GELU instead of the exact one, the error is 1e-4. The only mistake not
# detected is an epsilon of 1e-6 instead of 1e-12 in the ViT's norms: 9e-6.
TOLERANCE = 2e-5
# Names in transformers 4 -> names in transformers 5.
NEWER = {
  r'vit\.encoder\.layer\.': 'vit.layers.',
  r'attention\.attention\.(query|key|value)': r'attention.\1_proj',
  r'attention\.(q|k|v)\w+_proj': r'attention.\1_proj',
  r'attention\.output\.dense': 'attention.o_proj',
  r'(vit.*)intermediate\.dense': r'\1mlp.fc1',
  r'(vit.*)output\.dense': r'\1mlp.fc2',
}


def newer(name: str) -> str:
  for old, new in NEWER.items():
    name = re.sub(old, new, name)
  return name


def model_of(source: Source, **changes: Any) -> RAHFConfig:
  """Returns the model with a source's settings, in float32 and without dropout."""
  config = default_config()
  config.model.update_from_flattened_dict(source.settings)
  model = model_config(config)
  return dataclasses.replace(model, dtype='float32', dropout_rate=0.0, **changes)


def run(model: RAHFConfig, params, image, text, target, length: int) -> Outputs:
  """Returns all outputs of a model, with greedy decoding of `length` tokens."""
  module = RAHF(model)

  def everything(variables, image, text, target):
    def call(method, *inputs, **options):
      return module.apply(variables, *inputs, **options, method=method)

    fused = call(RAHF.encode, image, text, train=False)
    outputs = call(RAHF.predict, fused, target, train=False)
    return outputs._replace(keywords=call(RAHF.decode_greedily, fused, length))

  params = traverse_util.unflatten_dict(params, sep='/')
  return jax.device_get(jax.jit(everything)({'params': params}, image, text, target))


# The golden's captions have equal lengths, so that the original's lack of a mask makes
# no difference: ours gives the same outputs with and without one.
@pytest.fixture(scope='module', params=[('multi', False), ('single', True)])
def case(request, assets, describe_params, tmp_path_factory):
  form, mask_padding = request.param
  golden = read_golden(assets, form)
  path = tmp_path_factory.mktemp(form) / 'rahf_model.pt'
  write_state_dict(
    path, tensors(golden.shapes), wrapper={'single': 'model'}.get(form, '')
  )
  source = open_rahf_torch(path, vit_heads=golden.heads)
  model = model_of(source, mask_padding=mask_padding)
  plan = loading.plan({'rahf': source}, describe_params(model), model)
  assert not plan.fresh
  expected = golden.expected
  found = run(
    model,
    plan.read(),
    jnp.asarray(expected['image_nchw'].transpose(0, 2, 3, 1)),
    jnp.asarray(texts(expected, model.variant), jnp.int32),
    jnp.asarray(expected['ids/target'], jnp.int32),
    length=12,
  )
  path.unlink()
  return expected, found


def test_maps(case):
  expected, found = case
  for i, name in enumerate(MAPS):
    np.testing.assert_allclose(
      found.maps[:, i], expected[f'heatmap/{name}'], rtol=0, atol=TOLERANCE
    )


def test_scores(case):
  expected, found = case
  for i, name in enumerate(SCORES):
    np.testing.assert_allclose(
      found.scores[:, i], expected[f'score/{name}'], rtol=0, atol=TOLERANCE
    )


def test_logits_and_loss(case):
  expected, found = case
  np.testing.assert_allclose(found.logits, expected['logits'], rtol=0, atol=TOLERANCE)
  logp = jax.nn.log_softmax(found.logits)
  picked = np.take_along_axis(logp, expected['ids/target'][..., None], -1)
  np.testing.assert_allclose(-picked.mean(), expected['seq_loss'], atol=TOLERANCE)


def test_greedy_ids(case):
  expected, found = case
  # The golden starts with the start id, and has room for one more at the end.
  np.testing.assert_array_equal(found.keywords, expected['generated'][:, 1:-1])


# Name pattern -> (sizes of the golden -> sizes of the public checkpoint).
FULL_SIZES = {
  r'vit\..*patch_embeddings.*': {40: 1024},
  r'vit\..*': {40: 1024, 80: 4096, 5: 24 * 24 + 1},
  r't5\..*': {300: 32128, 256: 768, 128: 768, 96: 3072, 4: 12},
  r'visual.*': {256: 768, 40: 1024},
  r'heatmap.*\.conv_layers\.0\.weight': {256: 768},
  r'heatmap.*': {},
  r'score.*linear_layers.*': {16: 12 * 24 * 24},
  r'score.*': {256: 768, 128: 384, 64: 192, 32: 96, 16: 48, 4: 12},
}


def full_size(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
  """Returns the names and shapes of the public checkpoint."""
  full = {}
  for name, shape in shapes.items():
    sizes = next(s for p, s in FULL_SIZES.items() if re.fullmatch(p, name))
    numbers = [1]
    if match := re.match(r'(vit)\.encoder\.layer\.1|t5\.\w+\.block\.1\.', name):
      numbers = range(1, 24 if match[1] else 12)
    for i in numbers:
      numbered = re.sub(r'(layer|block)\.1\.', rf'\1.{i}.', name, count=1)
      full[numbered] = tuple(sizes.get(size, size) for size in shape)
  return full


@pytest.fixture(scope='module', params=[str, newer])
def public(request, assets, tmp_path_factory) -> Source:
  """The public checkpoint without its values, with names of both versions."""
  shapes = full_size(read_golden(assets, 'multi').shapes)
  path = tmp_path_factory.mktemp('public') / 'rahf_model.pt'
  views = {request.param(name): constant(shape) for name, shape in shapes.items()}
  write_state_dict(path, views)
  return open_rahf_torch(path)


def test_the_public_checkpoint_fits_its_config(public, describe_params):
  model = model_config(rahf_torch.get_config())
  plan = loading.plan({'rahf': public}, describe_params(model), model)
  assert not plan.fresh
  assert not plan.resized
  assert plan.count(plan.params) == '837 arrays, 641,563,110 values'
  assert public.licence == LICENCE
  assert plan.report().splitlines()[2:5] == [
    '  ignored: 2 arrays: pooler of the class token',
    '  ignored: 3 arrays: the token embedding under another name',
    f'  licence: {LICENCE}',
  ]
  exact = model_of(public)
  assert dataclasses.replace(exact, dtype=model.dtype, dropout_rate=0.1) == model


def test_both_sets_of_names_give_the_same_arrays(assets, tmp_path):
  golden = read_golden(assets, 'multi')
  views = {
    name: contiguous(weight(name, shape))
    if name.startswith('vit.')
    else constant(shape)
    for name, shape in golden.shapes.items()
  }
  write_state_dict(tmp_path / 'older.pt', views)
  write_state_dict(tmp_path / 'newer.pt', {newer(n): v for n, v in views.items()})
  one, other = (
    open_rahf_torch(tmp_path / name, vit_heads=4) for name in ('older.pt', 'newer.pt')
  )
  assert one.settings == other.settings
  assert one.weights.keys() == other.weights.keys()
  names = {weight.name for weight in other.weights.values()}
  assert {'vit.layers.1.attention.o_proj.weight', 'vit.layers.0.mlp.fc2.bias'} < names
  for path in one.weights:
    if path.startswith('vit/'):
      found = other.weights[path].read()
      np.testing.assert_array_equal(found, one.weights[path].read(), err_msg=path)


def change(assets, path: pathlib.Path, **changes: View | None) -> pathlib.Path:
  """Writes a checkpoint without values, with some tensors changed or removed."""
  shapes = read_golden(assets, 'single').shapes
  views = {name: constant(shape) for name, shape in shapes.items()} | changes
  write_state_dict(path, {name: view for name, view in views.items() if view})
  return path


def test_names_of_the_embedding_must_agree(assets, tmp_path):
  embedding = 't5/token_embedder/embedding'
  shape = (300, 256)
  same = {'t5.lm_head.weight': constant(shape)}
  source = open_rahf_torch(change(assets, tmp_path / '1.pt', **same), vit_heads=4)
  np.testing.assert_array_equal(source.weights[embedding].read(), np.ones(shape))
  other = {'t5.lm_head.weight': contiguous(np.zeros(shape, np.float32))}
  source = open_rahf_torch(change(assets, tmp_path / '2.pt', **other), vit_heads=4)
  with pytest.raises(InputError, match=r'lm_head.weight should be the same as t5.shar'):
    source.weights[embedding].read()


@pytest.mark.parametrize('name', SHARED)
def test_the_embedding_is_found_under_any_of_its_names(assets, tmp_path, name):
  embedding = contiguous(weight(name, (300, 256)))
  changes = dict.fromkeys(SHARED) | {name: embedding}
  source = open_rahf_torch(change(assets, tmp_path / '1.pt', **changes), vit_heads=4)
  assert source.settings['t5.tied_logits']
  found = source.weights['t5/token_embedder/embedding']
  assert found.name == name
  np.testing.assert_array_equal(found.read(), weight(name, (300, 256)))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict.fromkeys(SHARED), r'does not contain a T5.*embedding: it is missing'),
    ({'score_predictor.conv_layers.15.bias': None}, r'no name matches score_predi'),
    (
      {'vit.vit.layernorm.weight': constant((40,))},
      r'contains both vit.layernorm.weight and vit.vit.layernorm.weight, which are the',
    ),
    ({'extra.weight': constant((2,))}, r'extra.weight \[2\] has no place'),
    (
      {'score_predictor.linear_layers.0.weight': constant((512, 15))},
      r'linear_layers.0.weight \[512, 15\]: cannot reshape',
    ),
    ({'heatmap_predictor.last_conv1.bias': None}, 'no .heatmap_head/readout_0/bias'),
  ],
)
def test_other_models_are_refused(assets, tmp_path, changes, message):
  path = change(assets, tmp_path / 'other.pt', **changes)
  with pytest.raises(InputError, match=message):
    open_rahf_torch(path, vit_heads=4)


def test_unrelated_models_are_refused(tmp_path):
  write_state_dict(tmp_path / 'other.pt', {'fc.weight': constant((2, 3))})
  with pytest.raises(
    InputError, match=r'not a PyTorch RAHF.*it contains fc.weight, ….* give the dir'
  ):
    open_rahf_torch(tmp_path / 'other.pt')


def test_shapes_are_compared_with_the_model(assets, tmp_path, describe_params):
  path = tmp_path / 'other.pt'
  change(assets, path, **{'vit.layernorm.weight': constant((3, 3))})
  source = open_rahf_torch(path, vit_heads=4)
  model = model_of(source)
  with pytest.raises(InputError, match=r'layernorm.weight \[3, 3\] should .* \[40\]'):
    loading.plan({'rahf': source}, describe_params(model), model)


def test_unknown_numbers_of_heads_must_be_given(assets, tmp_path):
  path = change(assets, tmp_path / 'tiny.pt')
  with pytest.raises(InputError, match=r'ViT of width 40.*pass vit_heads'):
    open_rahf_torch(path)
