"""T5 against T5X's own outputs, and step-by-step decoding against teacher forcing."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rahf.models.t5 import T5, DecoderCache, T5Config
from rahf.models.t5.layers import by_distance, relative_bucket
from rahf.pretrained import load


@pytest.fixture(scope='module', params=['t5x_v1_1', 't5x_v1_0'])
def golden(request, assets):
  """A model, its variables, T5X's arrays, and what our model makes of them."""
  folder = assets / 'golden' / request.param
  fields = json.loads((folder / 'config.json').read_text())
  config = T5Config(
    vocab_size=fields['vocab_size'],
    width=fields['emb_dim'],
    heads=fields['num_heads'],
    head_dim=fields['head_dim'],
    mlp=fields['mlp_dim'],
    encoder_layers=fields['num_encoder_layers'],
    decoder_layers=fields['num_decoder_layers'],
    activations=tuple(fields['mlp_activations']),
    tied_logits=fields['logits_via_embedding'],
  )
  model = T5(config, 0.0, jnp.dtype('float32'))
  variables = {'params': load(folder / 'checkpoint_0')['t5']}
  expected = np.load(folder / 'expected.npz')

  @jax.jit
  def encode_and_decode(variables, tokens, targets):
    def run(model):
      mask = tokens != 0
      encoded = model.encode(model.embed(tokens), mask, train=False)
      return encoded, model.decode(encoded, mask, targets, train=False)

    return model.apply(variables, method=run)

  found = encode_and_decode(
    variables,
    jnp.asarray(expected['encoder_input_tokens']),
    jnp.asarray(expected['decoder_target_tokens']),
  )
  return model, variables, expected, found


def test_encoder_equals_t5x(golden):
  _, _, expected, (encoded, _) = golden
  real = expected['encoder_input_tokens'] != 0
  assert not real.all()
  np.testing.assert_allclose(encoded[real], expected['encoded'][real], atol=1e-5)


def test_logits_equal_t5x(golden):
  _, _, expected, (_, logits) = golden
  real = expected['decoder_target_tokens'] != 0
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits[real], expected['logits'][real], atol=1e-5)


def test_step_by_step_decoding_equals_teacher_forcing(golden):
  model, variables, expected, (encoded, logits) = golden
  mask = jnp.asarray(expected['encoder_input_tokens'] != 0)
  targets = jnp.asarray(expected['decoder_target_tokens'])
  inputs = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
  length = targets.shape[1]

  @jax.jit
  def decode(variables, encoded):
    def run(model):
      cache = DecoderCache.start(model.keys_values(encoded), length)
      steps = []
      for i in range(length):
        step, cache = model.decode_step(inputs[:, i], cache, mask, jnp.int32(i))
        steps.append(step)
      return jnp.stack(steps, axis=1)

    return model.apply(variables, method=run)

  np.testing.assert_allclose(decode(variables, encoded), logits, atol=1e-5)


def test_logits_of_a_few_tokens_equal_those_of_all(golden):
  model, variables, expected, (encoded, logits) = golden
  mask = jnp.asarray(expected['encoder_input_tokens'] != 0)
  targets = jnp.asarray(expected['decoder_target_tokens'])
  batch, length, vocabulary = logits.shape
  rng = np.random.default_rng(0)
  place = jnp.asarray(rng.integers(0, length, (batch, 7)))
  tokens = jnp.asarray(rng.integers(0, vocabulary, (batch, 7, 2)))

  @jax.jit
  def decode_at(variables, encoded):
    def run(model):
      memory = model.keys_values(encoded)
      return model.decode_at(memory, mask, targets, place, tokens)

    return model.apply(variables, method=run)

  some = logits[np.arange(batch)[:, None, None], place[..., None], tokens]
  np.testing.assert_allclose(decode_at(variables, encoded), some, atol=1e-5)


# Distances of which the bucket was computed by hand from the definition: exact up to
# half of a direction's buckets, then floor(log(n / exact) / log(128 / exact) x exact).
BOTH_WAYS = {
  0: 0,
  -1: 1,
  -7: 7,
  -8: 8,
  -11: 8,
  -12: 9,
  -16: 10,
  -32: 12,
  -64: 14,
  -91: 15,
  -128: 15,
  -5000: 15,
  1: 17,
  7: 23,
  16: 26,
  32: 28,
  64: 30,
  128: 31,
}
CAUSAL = {3: 0, 0: 0, -1: 1, -15: 15, -16: 16, -18: 16, -19: 17, -64: 26, -128: 31}


@pytest.mark.parametrize(
  ('expected', 'bidirectional'), [(BOTH_WAYS, True), (CAUSAL, False)]
)
def test_relative_buckets(expected, bidirectional):
  buckets = relative_bucket(np.array([list(expected)]), bidirectional=bidirectional)
  assert dict(zip(expected, buckets[0].tolist(), strict=True)) == expected


@pytest.mark.parametrize('length', [1, 2, 5])
def test_values_by_distance(length):
  values = jnp.arange(3.0 * (2 * length - 1)).reshape(3, -1)
  place = np.arange(length)
  expected = values[:, place[None] - place[:, None] + length - 1]
  np.testing.assert_array_equal(by_distance(values), expected)


def test_relative_buckets_are_monotonic():
  distances = np.arange(-1200, 1)[None]
  for bidirectional, last in ((True, 15), (False, 31)):
    buckets = relative_bucket(distances, bidirectional=bidirectional)[0]
    assert set(np.diff(buckets)) == {0, -1}
    assert (buckets[0], buckets[-1]) == (last, 0)
