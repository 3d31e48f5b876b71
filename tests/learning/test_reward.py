"""Rewards: the inputs and outputs of trainers, and gradients."""

import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rahf
import tiny_directory
from rahf.data import schema
from rahf.data.images import codec
from rahf.errors import InputError
from rahf.inference.step import scale
from rahf.learning import shared_gpu
from rahf.learning.reward import Reward
from rahf.learning.reward_terms import MAP_TERMS, PENALTIES

PROMPTS = ['a red circle', 'a blue square, red', 'a cat']
TERMS = (*schema.SCORES, *MAP_TERMS)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return tiny_directory.write(tmp_path_factory.mktemp('models'))


@pytest.fixture(scope='module')
def model(directory):
  return rahf.load(directory, batch_size=4)


@pytest.fixture(scope='module')
def pixels():
  """uint8[3, 24, 40, 3]."""
  return np.random.default_rng(0).integers(0, 256, (3, 24, 40, 3), np.uint8)


@pytest.fixture(scope='module')
def smooth():
  """Floats at the model's size, which need no scaling."""
  return np.random.default_rng(1).uniform(0.1, 0.9, (3, 32, 32, 3)).astype(np.float32)


def test_every_layout_agrees_with_model_score(model, pixels, tmp_path):
  reward = Reward(model)
  floats = pixels.astype(np.float32) / 255
  files = [tmp_path / f'{i}.png' for i in range(3)]
  for file, image in zip(files, pixels, strict=True):
    file.write_bytes(codec.encode_png(image))
  expected = [one.scores['overall'] for one in model.score(files, PROMPTS)]
  first = np.moveaxis(floats, -1, 1)
  for given in (
    pixels,
    floats,
    first,
    jnp.asarray(first),
    np.moveaxis(pixels, -1, 1),
    list(first),
    tuple(pixels),
    files,
  ):
    # Trainers pass tuples of prompts.
    values, _ = reward(given, tuple(PROMPTS), [{}] * 3)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-6)
  assert len(set(expected)) == 3


def test_info(model, pixels):
  found = model.score(pixels, PROMPTS)
  values, info = Reward(model)(pixels, PROMPTS)
  np.testing.assert_allclose(values, info['scores']['overall'])
  assert info['keywords'] == [one.keywords for one in found]
  assert info['truncated'].tolist() == [False] * 3
  assert set(info['penalties']) == set(PENALTIES)
  for name in schema.SCORES:
    expected = [one.scores[name] for one in found]
    np.testing.assert_allclose(info['scores'][name], expected, rtol=1e-6)
  for name in schema.MAPS:
    heatmaps = info['heatmaps'][name]
    assert heatmaps.shape == (3, 32, 32)
    for row, one in enumerate(found):
      np.testing.assert_array_equal(heatmaps[row], one.small_maps[name])
      mean, peak = (info['penalties'][f'{name}_{way}'][row] for way in ('mean', 'peak'))
      assert mean == pytest.approx(np.mean(one.small_maps[name]), rel=1e-5)
      assert peak == np.max(one.small_maps[name])
  words = [np.mean([p for _, p in one.keywords]) for one in found]
  np.testing.assert_allclose(info['penalties']['misaligned_words'], words, rtol=1e-6)


def test_the_weighted_sum(model, pixels):
  weights = {'plausibility': 2, 'alignment': np.float32(0.5), 'misaligned_words': -3}
  values, info = Reward(model, weights)(pixels, PROMPTS)
  expected = (
    2 * info['scores']['plausibility']
    + 0.5 * info['scores']['alignment']
    - 3 * info['penalties']['misaligned_words']
  )
  np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_truncated_words_do_not_count(model, pixels):
  _, info = Reward(model)(pixels[:1], 'red ' * 30 + 'square')
  assert info['truncated'].tolist() == [True]
  p = [p for _, p in info['keywords'][0]]
  assert np.isnan(p).any()
  expected = np.nanmean(p)
  assert info['penalties']['misaligned_words'][0] == pytest.approx(expected, rel=1e-6)


def test_any_batch_size_without_recompiling(directory, pixels):
  model = rahf.load(directory, batch_size=4)
  reward = Reward(model)
  (single,), _ = reward(pixels[:1], PROMPTS[0])
  many, info = reward(np.concatenate([pixels[:1]] * 7), PROMPTS[0])
  np.testing.assert_allclose(many, single, atol=1e-6)
  assert info['heatmaps']['misalignment'].shape == (7, 32, 32)
  assert model._infer_pixels._cache_size() == len(model.buckets) == 2
  none, info = reward([], [])
  assert none.shape == (0,)
  assert info['heatmaps']['misalignment'].shape == (0, 32, 32)


@pytest.mark.parametrize(
  ('weights', 'message'),
  [
    (['overall'], r"weights = \['overall'\] is not a dict of numbers; give, e.g.,"),
    ({}, 'weights is empty; give one or more of plausibility, alignment'),
    ({'beauty': 1}, "'beauty' is not one of plausibility, .*misaligned_words"),
    ({'overall': float('nan')}, 'overall = nan is not a finite number'),
    ({'overall': '1'}, "overall = '1' is not a finite number"),
    ({'implausibility_mean': 1}, 'would reward a penalty; give it a negative'),
  ],
)
def test_invalid_weights(directory, weights, message):
  with pytest.raises(InputError, match=message):
    rahf.reward(directory, weights=weights)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (np.full((1, 3, 8, 8), np.nan), r'images\[0\]: .* NaN or infinite'),
    (np.full((1, 3, 8, 8), -0.5), r'from -0\.5 to -0\.5 .* \(x \+ 1\) / 2'),
    (np.full((1, 8, 8, 3), 255.0), r'from 255 to 255 are not in \[0, 1\]; .* x / 255'),
    (
      np.zeros((1, 3, 8, 3)),
      r'shape \[1, 3, 8, 3\]: cannot tell which axis has the 3 col',
    ),
    (np.zeros((1, 4, 8, 8)), 'cannot tell which axis has the 3 colours; give'),
    (np.zeros((2, 3, 8, 8)), '1 prompts for 2 images'),
  ],
)
def test_invalid_images(model, given, message):
  with pytest.raises(InputError, match=message):
    Reward(model)(given, PROMPTS[:1])


@pytest.mark.parametrize('size', [(24, 40), (64, 64), (100, 37), (32, 32)])
def test_scaling_agrees_with_that_of_files(size):
  """Up to one level of 1/255, since PIL rounds after each axis."""
  pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
  expected = codec.resize(pixels[0], 32) / 255
  found = scale(pixels.astype(np.float32) / 255, 32)[0]
  np.testing.assert_allclose(found, expected, atol=1 / 255 + 1e-6)


def test_the_differentiable_reward_agrees_with_the_call(model, pixels, smooth):
  weights = {'overall': 1, 'alignment': 0.5, 'misalignment_peak': -2}
  reward = Reward(model, weights)
  text = reward.encode(PROMPTS)
  step = jax.jit(reward.differentiable)
  levels = np.round(smooth * 255).astype(np.uint8)
  expected, _ = reward(levels, PROMPTS)
  found = step(reward.params, levels.astype(np.float32) / 255, text)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  # Here the differentiable reward does not round.
  expected, _ = reward(pixels, PROMPTS)
  found = step(reward.params, pixels.astype(np.float32) / 255, text)
  np.testing.assert_allclose(found, expected, atol=0.01)


def test_one_prompt_for_all_images(model, smooth):
  """A string must not be treated as a list of letters."""
  reward = Reward(model)
  text = reward.encode('a cat')
  assert text.shape[0] == 1
  step = jax.jit(reward.differentiable)
  expected = step(reward.params, smooth, reward.encode(['a cat'] * 3))
  np.testing.assert_allclose(step(reward.params, smooth, text), expected, atol=1e-6)
  # The function that PyTorch differentiates.
  values, gradients = reward._values_and_gradients(smooth, 'a cat')
  np.testing.assert_allclose(values, expected, atol=1e-6)
  assert gradients.shape == smooth.shape
  with pytest.raises(InputError, match='there are no prompts; give one for each'):
    reward.encode([])
  with pytest.raises(InputError, match='its prompt is None'):
    reward.encode(None)


def test_gradients_agree_with_finite_differences(model, smooth):
  """For every term, along its gradient, scaling included."""
  reward = Reward(model)
  text = reward.encode(PROMPTS)
  pixels = np.asarray(jax.image.resize(smooth, (3, 48, 40, 3), 'bilinear'))

  @jax.jit
  def terms(pixels):
    found = reward.terms(reward.params, pixels, text)
    assert set(found) == set(TERMS)
    return jnp.stack([found[name].sum() for name in TERMS])

  gradients = np.asarray(jax.jit(jax.jacrev(terms))(pixels))
  for term, gradient in enumerate(gradients):
    length = np.linalg.norm(gradient)
    assert length > 0
    # Short enough not to switch ReLUs, long enough for float32 precision.
    step = 5e-5 / length * gradient / length
    change = terms(pixels + step)[term] - terms(pixels - step)[term]
    assert change == pytest.approx(1e-4, rel=0.02), TERMS[term]


def test_gradients_under_jit_grad_and_vmap(model, smooth):
  reward = Reward(model, {'plausibility': 1})
  text = reward.encode(PROMPTS)

  def one(pixels, text):
    return reward.differentiable(reward.params, pixels[None], text[None])[0]

  each = jax.jit(jax.vmap(jax.grad(one)))(smooth, text)
  together = jax.jit(
    jax.grad(lambda x: reward.differentiable(reward.params, x, text).sum())
  )(smooth)
  np.testing.assert_allclose(each, together, atol=1e-6)
  # A step along the gradient increases the reward.
  (before, _), (after, _) = (
    reward(np.clip(x, 0, 1), PROMPTS) for x in (smooth, smooth + 100 * together)
  )
  assert (after > before).all()


def test_words_have_no_gradient(model, smooth):
  reward = Reward(model, {'overall': 1, 'misaligned_words': -1})
  with pytest.raises(
    InputError, match='misaligned_words has a weight, but no gradient'
  ):
    reward.differentiable(reward.params, smooth, reward.encode(PROMPTS))


def run(code: str, **environment: str) -> str:
  """Runs Python in a fresh process without this process's JAX settings."""
  names = ('XLA_PYTHON_CLIENT_PREALLOCATE', 'XLA_CLIENT_MEM_FRACTION', 'JAX_PLATFORMS')
  kept = {name: value for name, value in os.environ.items() if name not in names}
  found = subprocess.run(
    [sys.executable, '-W', 'always', '-c', code],
    capture_output=True,
    text=True,
    env=kept | environment,
  )
  assert found.returncode == 0, found.stderr
  return found.stdout + found.stderr


SHOW = """
import os
print({k: v for k, v in os.environ.items() if 'PREALLOCATE' in k or 'FRACTION' in k})
print('platforms', jax.config.jax_platforms, next(iter(reward.model.params)))
"""


def test_memory_is_limited_before_jax_starts(directory):
  code = (
    'import rahf, jax\n'
    f'reward = rahf.reward({str(directory)!r}, device="cpu", memory_fraction=0.1)\n'
    + SHOW
  )
  found = run(code)
  assert "'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'" in found
  assert "'XLA_CLIENT_MEM_FRACTION': '0.1'" in found
  # JAX opens no GPU, even if there is one.
  assert 'platforms cpu' in found
  assert 'UserWarning' not in found
  found = run(code, XLA_PYTHON_CLIENT_MEM_FRACTION='.5', JAX_PLATFORMS='cpu')
  assert "'XLA_PYTHON_CLIENT_MEM_FRACTION': '.5'" in found
  assert 'XLA_CLIENT_MEM_FRACTION' not in found


@pytest.mark.parametrize('preset', [False, True])
def test_too_late_for_memory(directory, preset):
  """JAX is faked to have a GPU; it has really started."""
  code = (
    'import rahf, jax\n'
    'jax.devices()\n'
    'jax.default_backend = lambda: "gpu"\n'
    f'reward = rahf.reward({str(directory)!r}, device="cpu")\n' + SHOW
  )
  environment = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} if preset else {}
  found = run(code, JAX_PLATFORMS='cpu', **environment)
  assert ('UserWarning: JAX has already started' in found) != preset
  assert "'XLA_CLIENT_MEM_FRACTION'" not in found


def test_devices(directory):
  found = shared_gpu.open_shared('cpu:3', 0.25)
  assert found == jax.devices()[3]
  reward = rahf.reward(directory, device='cpu:3', batch_size=1)
  (leaf, *_) = jax.tree.leaves(reward.params)
  assert leaf.devices() == {found}
  assert shared_gpu.open_shared(None, 0.25) == jax.devices()[0]


def test_the_share_of_a_gpu_is_printed_once(monkeypatch, capsys):
  """With a fake GPU; absl and logging are silent, as in a trainer."""
  gpu = types.SimpleNamespace(platform='gpu')
  monkeypatch.setattr(shared_gpu, '_find', lambda *_: gpu)
  monkeypatch.setenv('XLA_CLIENT_MEM_FRACTION', '0.125')
  for _ in range(2):
    assert shared_gpu.open_shared('cuda', 0.25) is gpu
  printed = capsys.readouterr().err
  assert printed.count('with at most 0.125 of its memory') == 1


@pytest.mark.parametrize(
  ('device', 'fraction', 'message'),
  [
    ('cuda', 0.25, r"JAX has no cuda here, only cpu; .* device='cpu'"),
    ('cpu:99', 0.25, r'JAX sees no cpu:99; it sees cpu \[0, 1'),
    ('gpu0', 0.25, "device = 'gpu0' is not one of 'cpu', 'cuda'"),
    ('cpu', 0, r'memory_fraction = 0 is not in \(0, 1\]'),
  ],
)
def test_invalid_devices(device, fraction, message):
  with pytest.raises(InputError, match=message):
    shared_gpu.open_shared(device, fraction)
