"""A CLIP through `rahf.load`: the score of transformers' format, rewards, damage."""

import json
import math
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file
from util import make_pixels

import clip_directory
import clip_files
import hf_files
import rahf
from rahf.data.clip_tokenizer import ClipTokenizer, write_vocabulary
from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.inference import clip_directory as reader
from rahf.learning.reward import Reward
from rahf.models.clip import CLIP
from rahf.pretrained import load
from torch_files import contiguous, write_state_dict

PROMPT = 'two small blue squares'
# Of a model that starts from nothing, as the tiny one does.
SCALE = 1 / 0.07


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return clip_directory.write(tmp_path_factory.mktemp('weights') / 'clip')


@pytest.fixture(scope='module')
def model(directory):
  return rahf.load(directory)


@pytest.fixture
def copy(directory, tmp_path):
  return shutil.copytree(directory, tmp_path / 'copy')


def similarities(model, images, prompts):
  return [one.scores['similarity'] for one in model.score(images, prompts)]


def test_similarity_is_the_scaled_cosine(model, directory):
  """Of the network that tests/pretrained compares with transformers and OpenAI's."""
  images = [make_pixels(i, 30 + i, 50 - i) for i in range(3)]
  prompts = [*clip_directory.PROMPTS, PROMPT]
  ids = ClipTokenizer(directory, 'huggingface').encode(prompts).ids
  squares = [clip_image.crop(image, 32, 'huggingface') for image in images]
  logits = jax.jit(CLIP(clip_directory.CONFIG).apply)(
    {'params': load(directory)['clip']},
    jnp.asarray(clip_image.normalised(np.stack(squares))),
    jnp.asarray(ids),
  )
  found = similarities(model, images, prompts)
  np.testing.assert_allclose(found, np.diag(logits), atol=1e-5)
  assert len(set(found)) == 3


def test_what_a_clip_does_not_say_is_absent(model):
  (found,) = model.score(make_pixels(), PROMPT)
  assert list(found.scores) == ['similarity']
  assert found.heatmaps == {}
  assert found.keywords is found.misaligned is found.threshold is None
  fields = {'prompt', 'height', 'width', 'scores', 'truncated'}
  assert found.to_dict(maps=True).keys() == fields
  with pytest.raises(InputError, match='not a map; there are none, the model makes'):
    found.overlay('misalignment')


def test_range_and_direction(model):
  outputs = model.outputs
  assert outputs.main == 'similarity'
  low, high = outputs.scores['similarity'].scale.range
  assert -low == high == pytest.approx(SCALE, rel=1e-5)
  assert outputs.ranges == 'Scores are from -14.2857 to 14.2857, higher is better'
  described = outputs.to_dict()
  assert described.keys() == {'scores'}
  assert described['scores']['similarity']['direction'] == 'higher is better'


def test_alone_in_a_batch_and_on_eight_devices(directory, model):
  images = [make_pixels(i, 20 + i, 60 - i) for i in range(9)]
  prompts = [f'{"a red circle " * (i % 4)}ring' for i in range(9)]
  many = similarities(model, images, prompts)
  alone = [similarities(model, *pair)[0] for pair in zip(images, prompts, strict=True)]
  np.testing.assert_allclose(alone, many, rtol=0, atol=1e-5)
  spread = rahf.load(directory, batch_size=8, devices=jax.devices())
  found = similarities(spread, images, prompts)
  np.testing.assert_allclose(found, many, rtol=0, atol=1e-5)
  assert len(set(many)) == 9


def test_prompts_over_77_tokens_are_reported(model):
  words = 'ring ' * 300
  (short, long) = model.score([make_pixels()] * 2, [PROMPT, words])
  assert (short.truncated, long.truncated) == (False, True)
  with pytest.raises(InputError, match=r'images\[0\]: its prompt is None'):
    model.score(make_pixels(), None)


def test_preferences_are_the_softmax_of_the_similarities(model):
  images = [make_pixels(i) for i in range(4)]
  s = similarities(model, images, PROMPT)
  total = sum(math.exp(one) for one in s)
  expected = [math.exp(one) / total for one in s]
  found = model.preferences(images, PROMPT)
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  assert model.preferences(images[0], PROMPT).tolist() == [1.0]
  with pytest.raises(InputError, match='give the one text that all images'):
    model.preferences(images, [PROMPT] * 4)
  with pytest.raises(InputError, match='images is empty; give one'):
    model.preferences([], PROMPT)


def test_dtype(directory, model):
  other = rahf.load(directory, dtype='bfloat16')
  (found,) = similarities(other, make_pixels(), PROMPT)
  (expected,) = similarities(model, make_pixels(), PROMPT)
  assert found != expected
  assert found == pytest.approx(expected, abs=0.05 * SCALE)


def test_one_fingerprint_for_the_same_weights_in_other_files(directory, copy):
  first = reader.read_description(epath.Path(directory)).fingerprint
  arrays = load_file(copy / 'model.safetensors')
  (copy / 'model.safetensors').unlink()
  halves = {'a.safetensors': {}, 'b.safetensors': {}}
  for number, (name, array) in enumerate(arrays.items()):
    halves['ab'[number % 2] + '.safetensors'][name] = array
  for file, half in halves.items():
    save_file(half, copy / file)
  places = {name: file for file, half in halves.items() for name in half}
  index = copy / 'model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': places}))
  assert reader.read_description(epath.Path(copy)).fingerprint == first
  index.unlink()
  arrays['logit_scale'] = np.array(2.7, np.float32)
  save_file(arrays, copy / 'model.safetensors')
  assert reader.read_description(epath.Path(copy)).fingerprint != first


def test_a_file_of_openai_is_read_with_its_cleaning(assets, tmp_path):
  """Its vocabulary, and the heads that its arrays do not show, are beside it."""
  golden = json.loads((assets / 'preferences' / 'clip_tiny.json').read_text())
  arrays = {n: contiguous(a) for n, a in clip_files.arrays(golden).items()}
  write_state_dict(tmp_path / 'tiny.pt', arrays)
  (tmp_path / 'open_clip_config.json').write_text(
    json.dumps(
      {
        'model_cfg': {
          'quick_gelu': True,
          'vision_cfg': {'width': 128, 'head_width': 64},
          'text_cfg': {'width': 128, 'heads': 2},
        }
      }
    )
  )
  with pytest.raises(InputError, match=r'no vocabulary of CLIP.*copy its files'):
    rahf.load(tmp_path / 'tiny.pt')
  name = 'bpe_simple_vocab_16e6.txt.gz'
  shutil.copy(assets / 'tokenizer' / f'clip_{name}', tmp_path / name)
  model = rahf.load(tmp_path / 'tiny.pt')
  assert model.outputs.score_ranges == '-100 to 100, higher is better'
  image = make_pixels(0, 12, 12)
  # Only OpenAI's cleaning mends the entity.
  mended, plain = similarities(model, [image] * 2, ['a &amp; b', 'a & b'])
  assert mended == plain


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda f: (f / 'vocab.json').unlink(), 'no vocabulary of CLIP.*PickScore_v1'),
    (lambda f: (f / 'config.json').write_text('{'), r'config\.json is not JSON'),
    (
      lambda f: (f / 'model.safetensors').write_bytes(hf_files.POINTER),
      'Git LFS pointer',
    ),
    (
      lambda f: (f / 'model.safetensors').write_bytes(
        (f / 'model.safetensors').read_bytes()[:-9]
      ),
      'is truncated: .*copy it again',
    ),
    (lambda f: (f / 'model.safetensors').unlink(), r'has neither model\.safetensors'),
    (
      lambda f: write_vocabulary(
        epath.Path(f), clip_directory.train_vocabulary(clip_directory.PROMPTS, 520)
      ),
      'vocabulary of 520 tokens .* but the weights have 530 tokens',
    ),
  ],
)
def test_damage_is_one_error(copy, damage, message):
  damage(copy)
  with pytest.raises(InputError, match=message):
    rahf.load(copy)


def test_other_models(tmp_path, directory):
  t5 = hf_files.write(tmp_path / 't5', hf_files.T5, hf_files.t5_arrays())
  with pytest.raises(
    InputError, match='is a Hugging Face T5, not a CLIP; give a model'
  ):
    rahf.load(t5)
  (tmp_path / 'x.txt').write_text('a red circle')
  with pytest.raises(InputError, match=r'x\.txt has an unknown format; it should be'):
    rahf.load(tmp_path / 'x.txt')
  workdir = tmp_path / 'run'
  (workdir / 'checkpoints').mkdir(parents=True)
  (workdir / 'config.json').write_text('{}')
  with pytest.raises(InputError, match=r'a work directory, .*; export it first'):
    rahf.load(workdir)
  shutil.copytree(directory, workdir / 'export')
  with pytest.raises(InputError, match=r'a work directory, .*; give .*export'):
    rahf.load(workdir)


def test_without_the_extra(directory, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  with pytest.raises(InputError, match=r"tokenizers is not .* pip install 'rahf\[clip"):
    rahf.load(directory)


# Rewards


def test_rewards(model):
  images = np.stack([make_pixels(i) for i in range(3)])
  values, info = Reward(model)(images, PROMPT)
  np.testing.assert_allclose(values, similarities(model, images, PROMPT), rtol=1e-6)
  assert info.keys() == {'scores', 'truncated', 'ranges'}
  np.testing.assert_array_equal(info['scores']['similarity'], values)
  assert info['ranges'] == {
    'similarity': {
      'range': list(model.outputs.scores['similarity'].scale.range),
      'direction': 'higher is better',
    }
  }
  scaled, _ = Reward(model, {'similarity': 1 / 26})(images, PROMPT)
  np.testing.assert_allclose(scaled, values / 26, rtol=1e-6)
  none, info = Reward(model)([], [])
  assert none.shape == info['scores']['similarity'].shape == (0,)
  with pytest.raises(InputError, match="'overall' is not one of similarity"):
    Reward(model, {'overall': 1})


def test_the_gradient_of_similarity(model):
  """Agrees with finite differences, cropping and scaling included."""
  reward = Reward(model)
  text = reward.encode([PROMPT, 'a ring'])
  random = np.random.default_rng(0).uniform(0.2, 0.8, (2, 12, 10, 3))
  pixels = jax.image.resize(jnp.asarray(random, jnp.float32), (2, 60, 44, 3), 'linear')
  value = jax.jit(lambda x: reward.differentiable(reward.params, x, text))
  levels = np.round(np.asarray(pixels) * 255).astype(np.uint8)
  expected, _ = reward(levels, [PROMPT, 'a ring'])
  np.testing.assert_allclose(value(levels / np.float32(255)), expected, atol=0.02)
  gradient = np.asarray(jax.jit(jax.grad(lambda x: value(x).sum()))(pixels))
  # CLIP does not see what is above and below the square.
  assert not gradient[:, 0].any()
  assert gradient[:, 30].any()
  for row in range(2):
    length = np.linalg.norm(gradient[row])
    step = 1e-2 / length * gradient[row] / length
    change = value(pixels + step)[row] - value(pixels - step)[row]
    assert change == pytest.approx(2e-2, rel=0.02)


def test_reward_opens_a_directory(directory, model):
  reward = rahf.reward(directory, device='cpu', weights={'similarity': 2})
  values, _ = reward(make_pixels()[None], PROMPT)
  (expected,) = similarities(model, make_pixels(), PROMPT)
  assert values == pytest.approx(2 * expected, rel=1e-5)
