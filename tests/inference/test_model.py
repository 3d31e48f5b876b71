"""Scoring by `rahf.load`: any kind of image, any batch, the training's own pixels."""

import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import util
from ml_collections import ConfigDict
from PIL import Image
from util import make_pixels

import rahf
import tiny_directory
from rahf.data import schema
from rahf.data.images import codec
from rahf.data.pipeline import batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage.records import open_split
from rahf.data.tokenizer import Tokenizer, at_word_ends
from rahf.errors import InputError
from rahf.inference.feedback import Feedback
from rahf.inference.scorer import _buckets
from rahf.models.constrained import insert_marks
from rahf.models.rahf import RAHF
from rahf.training.eval_step import make_eval_step
from tiny_directory import LENGTH, TARGET

PROMPT = 'a red circle, a blue square'


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
  return tiny_directory.write(tmp_path_factory.mktemp('models'), threshold=0.25)


@pytest.fixture(scope='module')
def tokenizer(directory) -> Tokenizer:
  return Tokenizer(directory / 'tokenizer.model')


@pytest.fixture(scope='module')
def model(directory):
  return rahf.load(directory)


def assert_same(one: Feedback, other: Feedback, tolerance=0.0):
  assert one.scores == pytest.approx(other.scores, abs=tolerance, rel=0)
  for name, heatmap in one.heatmaps.items():
    np.testing.assert_allclose(heatmap, other.heatmaps[name], rtol=0, atol=tolerance)
  (words, p), (others, q) = (zip(*f.keywords, strict=True) for f in (one, other))
  assert words == others
  np.testing.assert_allclose(p, q, rtol=0, atol=tolerance)


def test_every_kind_of_image_gives_the_same(model, tmp_path):
  pixels = make_pixels()
  path = tmp_path / 'a.png'
  path.write_bytes(codec.encode_png(pixels))
  floats = pixels.astype(np.float32) / 255
  kinds = [
    pixels,
    str(path),
    path,
    path.read_bytes(),
    Image.fromarray(pixels),
    floats,
    floats.astype(np.float64),
    jnp.asarray(pixels),
    jnp.asarray(floats),
    np.stack([pixels, pixels]),
    (pixels[:, ::-1])[:, ::-1],
  ]
  found = model.score(kinds, PROMPT)
  assert len(found) == len(kinds) + 1
  for one in found[1:]:
    assert_same(one, found[0])
  # bfloat16 has 8 bits of a value: a level of 255 is off by half at most.
  (rounded,) = model.score(jnp.asarray(floats, jnp.bfloat16), PROMPT)
  assert rounded.scores == pytest.approx(found[0].scores, abs=0.02)


def test_one_image_and_the_same_among_64(model):
  pixels = [make_pixels(i, 20 + i, 50 - i // 2) for i in range(64)]
  prompts = [f'{"a red circle, " * (i % 3)}a blue square' for i in range(64)]
  many = model.score(pixels, prompts)
  for i in (0, 1, 37):
    (single,) = model.score(pixels[i], prompts[i])
    assert_same(single, many[i], 1e-5)
  sizes = [one.heatmaps['misalignment'].shape for one in many]
  assert sizes == [one.shape[:2] for one in pixels]
  assert [one.prompt for one in many] == prompts
  # Images differ, so that a change of order would show.
  assert len({one.scores['overall'] for one in many}) > 60


def test_scores_without_maps_and_words(model):
  images = [make_pixels(seed) for seed in range(3)]
  ready = [model.prepare(image, 'a red circle') for image in images]
  for full, short in zip(
    model.score_examples(ready),
    model.score_examples(ready, scores_only=True),
    strict=True,
  ):
    assert short.scores == pytest.approx(full.scores, abs=1e-6)
    assert short.keywords is None
    assert not short.heatmaps


def test_each_bucket_is_compiled_once(directory):
  model = rahf.load(directory, batch_size=4)
  assert model.buckets == (1, 4)
  for number in (1, 2, 3, 4, 5, 9, 1):
    assert len(model.score([make_pixels()] * number, PROMPT)) == number
  assert model._infer_pixels._cache_size() == 2
  assert model.score([], []) == []


@pytest.mark.parametrize(
  ('batch_size', 'devices', 'buckets'),
  [
    (64, 1, (1, 4, 16, 64)),
    (1, 1, (1,)),
    (6, 1, (1, 2, 6)),
    (64, 8, (8, 16, 64)),
    (8, 8, (8,)),
  ],
)
def test_buckets(batch_size, devices, buckets):
  assert _buckets(batch_size, devices) == buckets


def test_devices_do_not_matter(model, directory):
  pixels = [make_pixels(i) for i in range(5)]
  spread = rahf.load(directory, batch_size=8, devices=jax.devices())
  for one, other in zip(
    spread.score(pixels, PROMPT), model.score(pixels, PROMPT), strict=True
  ):
    assert_same(one, other, 1e-5)
  with pytest.raises(InputError, match='batch_size = 9 is not a positive multiple'):
    rahf.load(directory, batch_size=9, devices=jax.devices())


@pytest.mark.parametrize(
  ('variant', 'decoder'),
  [('multi_head', 'sequential'), ('augmented_prompt', 'parallel')],
)
def test_scores_are_those_of_the_evaluation(tokenizer, tmp_path, variant, decoder):
  """The same records through tf.data and the evaluation's step."""
  model = rahf.load(tiny_directory.write(tmp_path, variant, decoder=decoder))
  config = model.description.model
  prompts = (PROMPT, 'a cat', 'red, red red red', 'square')
  records = [util.make_record(i, 50, prompt=text) for i, text in enumerate(prompts)]
  util.write_split(tmp_path / 'data', 'dev', records)
  options = PipelineOptions(config.image_size, LENGTH, TARGET, variant)
  (batch,) = batches.eval_batches(
    open_split(tmp_path / 'data', 'dev'), tokenizer, options, batch_size=4
  )
  words = ConfigDict(dict(decoder=decoder, beams=1))
  eval_step = make_eval_step(RAHF(config), words, tokenizer.mark_ids, TARGET)
  expected = jax.device_get(jax.jit(eval_step)({'params': model.params}, batch).outputs)

  found = model.score([record.image for record in records], prompts)
  for row, one in enumerate(found):
    scores = dict(zip(schema.SCORES, expected.scores[row], strict=True))
    assert one.scores == pytest.approx(scores, abs=1e-5)
    for name, heatmap in zip(schema.MAPS, expected.maps[row], strict=True):
      np.testing.assert_allclose(one.small_maps[name], heatmap, atol=1e-5)
    pieces = tokenizer.encode(prompts[row])
    p = at_word_ends(expected.p_misaligned[row], pieces)
    assert [p for _, p in one.keywords] == pytest.approx(p.tolist(), abs=1e-5)
    example = model.prepare(records[row].image, prompts[row])
    pixels = codec.to_signed(example.pixels.astype(np.float32) / 255)
    # A level is 2/255 of the range.
    np.testing.assert_allclose(pixels, batch.image[row], atol=2 / 255)


@pytest.mark.parametrize('name', ['sequential', 'parallel'])
def test_words_at_any_white_space(tmp_path, name):
  """They are named, and judged, as beside spaces."""
  model = rahf.load(tiny_directory.write(tmp_path, decoder=name))
  plain = 'a red circle blue square'
  (expected,) = model.score(make_pixels(), plain)
  assert [word for word, _ in expected.keywords] == plain.split(' ')
  for prompt in (
    f'{plain}\n',
    'a red\ncircle \t blue\r\n\r\nsquare \n',
    '\ufeffa\u00a0red\u3000circle \u00a0 blue\u200bsquare',
  ):
    (found,) = model.score(make_pixels(), prompt)
    assert_same(found, expected, 1e-6)
    assert found.prompt == prompt
    words = [keyword['word'] for keyword in found.to_dict()['keywords']]
    assert words == plain.split(' ')
  (found,) = model.score(make_pixels(), '\u200b ,.')
  assert found.keywords == found.misaligned == []


def test_a_truncated_prompt(model, tokenizer):
  prompt = 'red ' * 30 + 'square'
  (found,) = model.score(make_pixels(), prompt)
  assert found.truncated
  assert len(found.keywords) == 31
  # A word is judged at the token right after it.
  ends = np.array(tokenizer.encode(prompt).word_ends)
  p = np.array([p for _, p in found.keywords])
  assert np.isnan(p[ends >= LENGTH]).all()
  assert np.isfinite(p[0])
  assert json.loads(json.dumps(found.to_dict(), allow_nan=False))['truncated']


@pytest.mark.parametrize('marked', [False, True])
def test_words_for_which_decoding_has_no_room(model, tokenizer, marked):
  """A word is judged where the decoder puts the choice within the target."""
  row = model.encode(' '.join(['red'] * 13))
  p = np.where(row.word_end, 0.9 if marked else 0.1, 0).astype(np.float32)
  _, place = insert_marks(
    jnp.asarray(row.text[-1:]), jnp.asarray(p[None] > 0.5), tokenizer.mark_ids, TARGET
  )
  expected = np.asarray(place[0])[list(row.pieces.word_ends)] < TARGET
  assert expected.all() == (not marked)
  assert np.isfinite(model._judged(row, p)).tolist() == expected.tolist()


@pytest.mark.parametrize(
  ('image', 'message'),
  [
    (b'GIF89a', r'images\[1\]: not a PNG, JPEG or WEBP image'),
    ('nowhere.png', r'images\[1\]: nowhere\.png cannot be read: No such file'),
    ('https://a.b/c.png', 'is a URL; download the image and give its bytes'),
    (np.zeros((4, 4), np.uint8), r'shape \[4, 4\] is not an image'),
    (np.zeros((3, 4, 4), np.uint8), r'\[3, 4, 4\] is not an RGB .* channels last'),
    (np.zeros((0, 4, 3), np.uint8), r'\[0, 4, 3\] is not an RGB'),
    (np.zeros((4, 4, 3), np.int64), 'int64 has no known range'),
    (np.full((4, 4, 3), 255.0), r'floats from 255 to 255 .* x / 255'),
    (np.full((4, 4, 3), -1.0), r'floats from -1 to -1 .* \(x \+ 1\) / 2'),
    (np.full((4, 4, 3), np.nan), r'images\[1\]: the array has pixels that are NaN'),
    (np.full((4, 4, 3), np.inf), 'NaN or infinite'),
    (Image.new('F', (4, 4)), "mode 'F'"),
    (Image.new('I', (4, 4), 200), "mode 'I' has no known range"),
    ('foo://a/b.png', 'cannot be read: foo:// is not a known kind of bucket'),
    (None, 'NoneType is not an image'),
    ({'image': b''}, 'dict is not an image'),
    (Image.new('RGB', (0, 4)), r'images\[1\]: 0x4: it has no pixels'),
  ],
)
def test_invalid_images_are_errors(model, image, message):
  with pytest.raises(InputError, match=message):
    model.score([make_pixels(), image], PROMPT)


@pytest.mark.parametrize(
  ('prompts', 'message'),
  [
    (None, r'images\[0\]: its prompt is None'),
    (['a', ' '], r"images\[1\]: its prompt is ' '"),
    (['a', 3], r'images\[1\]: its prompt is 3'),
    (['a'], '1 prompts for 2 images'),
    (['a', 'b \ud800'], r'images\[1\]: its prompt .* is not valid Unicode'),
    (3, 'prompts = 3; give a string for each image'),
    (b'a cat', r"prompts = b'a cat'; give a string"),
    (np.array([['a', 'b']]), 'prompts = array'),
    (np.array('a'), 'prompts = array'),
    ({'a', 'b'}, 'prompts: a set does not say which prompt belongs to which'),
    (frozenset('ab'), 'prompts: a frozenset does not say'),
    ({'x.png': 'a', 'y.png': 'b'}, 'prompts: a dict does not say'),
    ({'a': 1, 'b': 2}.keys(), 'prompts: a dict_keys does not say'),
    (itertools.repeat('a'), '3 or more prompts for 2 images'),
    (['a'] * 5, '5 prompts for 2 images'),
    ((text for text in 'a'), '1 prompts for 2 images'),
  ],
)
def test_invalid_prompts_are_errors(model, prompts, message):
  with pytest.raises(InputError, match=message):
    model.score([make_pixels()] * 2, prompts)


def test_any_ordered_collection_of_prompts(model):
  pixels = [make_pixels()] * 2
  expected = model.score(pixels, ['a cat', 'a red circle'])
  for prompts in (
    ('a cat', 'a red circle'),
    (text for text in ('a cat', 'a red circle')),
    np.array(['a cat', 'a red circle']),
    {1: 'a cat', 2: 'a red circle'}.values(),
  ):
    found = model.score(pixels, prompts)
    assert [one.prompt for one in found] == ['a cat', 'a red circle']
    assert [one.scores for one in found] == [one.scores for one in expected]


def test_paths_that_are_not_model_directories():
  with pytest.raises(
    InputError, match='None is not the path of a model directory; give'
  ):
    rahf.load(None)


def test_dtype_of_the_computation(model, directory):
  other = rahf.load(directory, dtype='bfloat16')
  assert other.description.model.dtype == 'bfloat16'
  (found,) = other.score(make_pixels(), PROMPT)
  (expected,) = model.score(make_pixels(), PROMPT)
  assert found.scores != expected.scores
  assert found.scores == pytest.approx(expected.scores, abs=0.05)
  with pytest.raises(InputError, match="dtype = 'int8' is not one of float32"):
    rahf.load(directory, dtype='int8')


def test_the_step_can_be_differentiated(model):
  """What rewards are made of: infer is a pure function of the image in [-1, 1]."""
  example = model.prepare(make_pixels(), PROMPT)
  pixels = codec.to_signed(jnp.asarray(example.pixels[None], jnp.float32) / 255)
  text, word_end = example.row.text[None], example.row.word_end[None]

  def overall(image, text, word_end):
    return model.infer(model.params, image, text, word_end).scores[0, 3]

  value, gradient = jax.jit(jax.value_and_grad(overall))(pixels, text, word_end)
  (found,) = model.score(make_pixels(), PROMPT)
  assert float(value) == pytest.approx(found.scores['overall'], abs=1e-5)
  assert float(jnp.abs(gradient).max()) > 0


def test_import_is_quick_and_needs_little():
  code = (
    'import sys, rahf\n'
    "print({m.split('.')[0] for m in sys.modules} & {'jax', 'numpy', 'tensorflow'})"
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert found.stdout.strip() == 'set()', found.stderr
  with pytest.raises(AttributeError, match="no attribute 'laod'"):
    rahf.laod  # noqa: B018


def test_scoring_needs_no_package_of_the_extra_train(directory):
  blocked = ('tensorflow', 'tensorflow_datasets', 'pyarrow', 'matplotlib')
  code = (
    f'import sys\nfor name in {blocked}:\n  sys.modules[name] = None\n'
    'import numpy as np, rahf\n'
    f'model = rahf.load({str(directory)!r})\n'
    f'(found,) = model.score(np.zeros((8, 9, 3), np.uint8), {PROMPT!r})\n'
    "print(found.heatmaps['misalignment'].shape, found.overlay('misalignment').size)"
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert found.stdout.strip() == '(8, 9) (9, 8)', found.stderr


def test_the_readme_example_runs(directory, tmp_path, monkeypatch, capsys):
  readme = (pathlib.Path(__file__).parents[2] / 'README.md').read_text()
  blocks = re.findall(r'```python\n(.*?)```', readme, re.S)
  (code,) = (block for block in blocks if 'import rahf' in block)
  monkeypatch.chdir(tmp_path)
  shutil.copytree(directory, 'runs/quickstart/export')
  pathlib.Path('image.png').write_bytes(codec.encode_png(make_pixels()))
  exec(code, {})
  printed = capsys.readouterr().out
  assert "'plausibility': 0." in printed
  assert "[('two', 0." in printed
  assert Image.open('overlay.png').size == (40, 24)


def test_a_moved_directory(directory, model, tmp_path):
  moved = shutil.move(shutil.copytree(directory, tmp_path / 'a'), tmp_path / 'b')
  (found,) = rahf.load(moved).score(make_pixels(), PROMPT)
  assert_same(found, model.score(make_pixels(), PROMPT)[0])
