"""RAHF as a whole: what its outputs depend on, and what they do not."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.costs.work import inner_jaxprs
from rahf.data import schema
from rahf.models import rahf
from rahf.models.rahf import RAHF, Fused, Outputs
from rahf.runtime.tree import by_path
from tiny_model import VARIANTS, make_batch, make_params, tiny

BATCH = 4
IMAGE_TOKENS = 16


@functools.cache
class Model:
  """A model with random parameters, and compiled functions of it."""

  def __init__(self, **changes):
    self.config = tiny(**changes)
    self.module = RAHF(self.config)
    self.params = make_params(self.module)
    self.batch = make_batch(self.config, BATCH)
    self.apply = jax.jit(
      self.module.apply, static_argnames=('train', 'method', 'length')
    )

  def __call__(self, train=False, seed=None, **changes) -> Outputs:
    batch = self.batch._replace(**changes)
    rngs = None if seed is None else {'dropout': jax.random.key(seed)}
    inputs = map(jnp.asarray, (batch.image, batch.text, batch.target))
    return self.apply({'params': self.params}, *inputs, train=train, rngs=rngs)

  def encode(self) -> Fused:
    variables = {'params': self.params}
    image, text = map(jnp.asarray, (self.batch.image, self.batch.text))
    return self.apply(variables, image, text, train=False, method='encode')

  def predict(self, fused: Fused, params=None, target=None) -> Outputs:
    variables = {'params': self.params if params is None else params}
    target = jnp.asarray(self.batch.target if target is None else target)
    return self.apply(variables, fused, target, train=False, method='predict')


@pytest.fixture(scope='module', params=VARIANTS)
def model(request) -> Model:
  return Model(**({} if request.param == 'multi_head' else {'variant': request.param}))


@pytest.fixture(scope='module')
def expected(model) -> Outputs:
  return model()


@pytest.fixture(scope='module')
def augmented() -> Model:
  return Model(variant='augmented_prompt')


def difference(one, other) -> float:
  return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def changed(one: Outputs, other: Outputs) -> set[str]:
  """Names the outputs that differ."""
  pairs = {'logits': (one.logits, other.logits)}
  for i, name in enumerate(rahf.MAPS):
    pairs[name] = (one.maps[:, i], other.maps[:, i])
  for i, name in enumerate(rahf.SCORES):
    pairs[name] = (one.scores[:, i], other.scores[:, i])
  return {name for name, pair in pairs.items() if difference(*pair) > 1e-5}


def test_names_are_those_of_the_data():
  assert (rahf.MAPS, rahf.SCORES) == (schema.MAPS, schema.SCORES)


def test_shapes_and_ranges(model, expected):
  assert expected.maps.shape == (BATCH, 2, 32, 32)
  assert expected.scores.shape == (BATCH, 4)
  assert expected.logits.shape == (BATCH, 8, model.config.t5.vocab_size)
  for values in (expected.maps, expected.scores):
    assert 0 < float(values.min()) < float(values.max()) < 1
    assert values.dtype == jnp.float32


def test_parameter_groups(model):
  heads = {'heatmap_head', 'score_head'}
  if model.config.variant == 'multi_head':
    heads = {f'heatmap_head_{name}' for name in rahf.MAPS}
    heads |= {f'score_head_{name}' for name in rahf.SCORES}
  assert set(model.params) == {'vit', 't5', 'image_projection'} | heads
  assert set(model.params['t5']) == {'token_embedder', 'encoder', 'decoder'}
  names = by_path(model.params)
  assert 'vit/Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel' in names


def test_a_row_does_not_depend_on_batch_and_padding(model, expected):
  """The second row as a separate batch, with all lengths doubled."""
  row = {n: getattr(model.batch, n)[1:2] for n in ('image', 'text', 'target')}
  for name in ('text', 'target'):
    row[name] = np.concatenate([row[name], np.zeros_like(row[name])], axis=-1)
  found = model(**row)
  real = model.batch.target[1] != 0
  logits = found.logits[0, : len(real)]
  assert difference(found.maps[0], expected.maps[1]) <= 1e-5
  assert difference(found.scores[0], expected.scores[1]) <= 1e-5
  assert difference(logits[real], expected.logits[1][real]) <= 1e-5


def test_padding_matters_without_its_mask():
  masked, unmasked = Model(), Model(mask_padding=False)
  full = np.where(masked.batch.text == 0, 5, masked.batch.text)
  assert changed(unmasked(text=full), masked(text=full)) == set()
  everything = {'logits', *rahf.MAPS, *rahf.SCORES}
  assert changed(unmasked(), masked()) == everything


def test_neighbours_change_nothing(model, expected):
  """The second row keeps its outputs in another place, among other rows."""
  fields = {}
  for name in ('image', 'text', 'target'):
    rows = getattr(model.batch, name)
    others = np.roll(rows, 5, axis=-1)
    fields[name] = np.stack([others[0], others[2], rows[1], others[3]])
  found = model(**fields)
  for name in ('maps', 'scores', 'logits'):
    one, other = getattr(found, name), getattr(expected, name)
    assert difference(one[2], other[1]) <= 1e-5
    assert difference(one[0], other[0]) > 1e-3


def test_the_image_matters_for_everything(model, expected):
  found = model(image=np.roll(model.batch.image, 1, axis=0))
  everything = {'logits', *rahf.MAPS, *rahf.SCORES}
  assert changed(found, expected) == everything


def test_the_prompt_matters_for_everything_in_the_multi_head_variant():
  model = Model()
  text = model.batch.text.copy()
  text[:, 0, 0] = 7
  everything = {'logits', *rahf.MAPS, *rahf.SCORES}
  assert changed(model(text=text), model()) == everything


@pytest.mark.parametrize(
  ('task', 'name'), enumerate([*rahf.MAPS, *rahf.SCORES, 'logits'])
)
def test_a_tasks_text_matters_for_its_own_output_only(augmented, task, name):
  text = augmented.batch.text.copy()
  text[:, task, 0] = np.where(text[:, task, 0] == 7, 8, 7)
  assert changed(augmented(text=text), augmented()) == {name}


def test_maps_keep_the_positions_of_tokens():
  """A token's trace in the map lies around its place in the grid, row by row."""
  model = Model()
  fused = model.encode()
  heads = {name: model.params[name] for name in model.params if 'heatmap' in name}
  centre = np.pad(np.ones((1, 1, 1, 1)), ((1, 1), (1, 1), (0, 0), (0, 0)))
  heads = jax.tree.map(lambda x: x * centre if x.ndim == 4 else x, heads)
  params = model.params | heads

  def maps(fused):
    return model.predict(fused, params).maps

  row, column = 3, 1
  place = row * model.config.grid + column
  tokens = fused.tokens.at[:, :, place].add(jnp.arange(16.0) - 8)
  trace = np.abs(np.asarray(maps(fused._replace(tokens=tokens)) - maps(fused)))
  trace = trace.mean((0, 1)).reshape(4, 8, 4, 8).sum((1, 3))
  assert np.unravel_index(trace.argmax(), trace.shape) == (row, column)


def test_the_decoder_sees_the_image_or_not():
  for sees in (True, False):
    model = Model(decoder_sees_image=sees)
    fused = model.encode()
    blind = fused._replace(tokens=fused.tokens.at[:, :, :IMAGE_TOKENS].multiply(-1))
    moved = changed(model.predict(blind), model.predict(fused))
    assert ('logits' in moved) == sees
    assert set(rahf.MAPS) <= moved


def test_the_class_token_joins_the_fused_sequence():
  model = Model(keep_class_token=True, decoder_sees_image=False)
  fused = model.encode()
  assert fused.tokens.shape[2] == 1 + IMAGE_TOKENS + 16
  assert Model().encode().tokens.shape[2] == IMAGE_TOKENS + 16
  before = model.predict(fused)

  def without(*places: int) -> set[str]:
    tokens = fused.tokens.at[:, :, jnp.array(places)].multiply(-1)
    return changed(model.predict(fused._replace(tokens=tokens)), before)

  everything = {*rahf.MAPS, *rahf.SCORES}
  # Heads and decoder pass it by; the tokens beside it are the image's and the text's.
  assert without(0) == set()
  assert without(1) == without(IMAGE_TOKENS) == everything
  assert without(IMAGE_TOKENS + 1) == {'logits'}


def test_greedy_decoding_equals_the_argmax_of_teacher_forcing(model):
  length = model.batch.target.shape[1]
  fused = model.encode()
  variables = {'params': model.params}
  found = model.apply(variables, fused, length=length, method='decode_greedily')

  tokens = np.zeros((BATCH, length), np.int32)
  ended = np.zeros(BATCH, bool)
  for i in range(length):
    likeliest = model.predict(fused, target=tokens).logits[:, i].argmax(-1)
    tokens[:, i] = np.where(ended, 0, likeliest)
    ended |= tokens[:, i] == 1
  np.testing.assert_array_equal(found, tokens)
  assert len(np.unique(tokens)) > 3


def test_dropout_is_for_training_only():
  model = Model(dropout_rate=0.5)
  still = model()
  assert changed(still, Model()()) == set()
  one, same, other = (model(train=True, seed=seed) for seed in (1, 1, 2))
  assert changed(one, same) == set()
  everything = {'logits', *rahf.MAPS, *rahf.SCORES}
  assert changed(one, still) == changed(one, other) == everything


def test_a_loop_changes_no_prediction(model, expected):
  config = dataclasses.replace(model.config, loop=True)
  batch, apply = model.batch, RAHF(config).apply
  inputs = map(jnp.asarray, (batch.image, batch.text, batch.target))
  found = jax.jit(functools.partial(apply, train=False))(
    {'params': model.params}, *inputs
  )
  for name in ('maps', 'scores', 'logits'):
    assert difference(getattr(found, name), getattr(expected, name)) < 1e-5


@pytest.mark.parametrize('variant', VARIANTS)
def test_bfloat16_is_for_computation_only(variant):
  """Parameters and results are float32; what convolutions multiply is bfloat16."""
  config = tiny(variant, dtype='bfloat16')
  module = RAHF(config)
  batch = make_batch(config, BATCH)
  params = make_params(module)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {'float32'}
  image, text, target = map(jnp.asarray, (batch.image, batch.text, batch.target))

  def run(params, method='__call__', **inputs):
    return module.apply({'params': params}, **inputs, train=False, method=method)

  fused = jax.eval_shape(lambda p: run(p, 'encode', image=image, text=text), params)
  assert fused.tokens.dtype == jnp.bfloat16
  jaxpr = jax.make_jaxpr(lambda p: run(p, image=image, text=text, target=target))(
    params
  )
  assert {aval.dtype.name for aval in jaxpr.out_avals} == {'float32'}
  convolutions = [
    equation
    for equation in equations(jaxpr.jaxpr)
    if equation.primitive.name == 'conv_general_dilated'
  ]
  assert len(convolutions) > 5
  for equation in convolutions:
    assert {str(variable.aval.dtype) for variable in equation.invars} == {'bfloat16'}


def equations(jaxpr):
  """Yields the equations of a jaxpr and of those inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in inner_jaxprs(equation):
      yield from equations(inner)
