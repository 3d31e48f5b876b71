"""Any image, prompt or record gives a correct result or an error that says what is
wrong, within limits of time and memory."""

import io
import subprocess
import sys
import time

import mutants
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from util import make_record, train_model

from rahf.data import label_words, schema
from rahf.data.datasets.joining import features
from rahf.data.images import codec
from rahf.data.pipeline.decoding import PipelineOptions, decode_record
from rahf.data.storage.records import parse_record
from rahf.data.tokenizer import EOS, Tokenizer
from rahf.errors import InputError

# Limits of one image, in seconds and bytes of additional memory.
TIME, MEMORY = 5.0, 600 * 2**20


@pytest.fixture(scope='module')
def many(long):
  """The number of examples for each property."""
  return settings(
    max_examples=5_000 if long else 150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
  )


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory) -> Tokenizer:
  return Tokenizer(train_model(tmp_path_factory.mktemp('t') / 't.model', '_0'))


# Images


# How viewers transform images for each EXIF orientation.
UPRIGHT = {
  '1': lambda a: a,
  '2': lambda a: a[:, ::-1],
  '3': lambda a: a[::-1, ::-1],
  '4': lambda a: a[::-1],
  '5': lambda a: a.swapaxes(0, 1),
  '6': lambda a: np.rot90(a, -1),
  '7': lambda a: np.rot90(a, 2).swapaxes(0, 1),
  '8': np.rot90,
}


@pytest.mark.parametrize('name', mutants.originals())
def test_valid_images_are_read_like_pillow(name):
  data = mutants.originals()[name]
  image = Image.open(io.BytesIO(data))
  if name == 'PNG 16 bits':
    expected = np.repeat((np.asarray(image) >> 8)[..., None], 3, -1)
  elif image.mode in ('RGBA', 'LA') or 'transparency' in image.info:
    layers = np.asarray(image.convert('RGBA')).astype(float)
    alpha = layers[..., 3:] / 255
    expected = layers[..., :3] * alpha + 255 * (1 - alpha)
  else:
    expected = np.asarray(image.convert('RGB'))
  if 'orientation' in name:
    expected = UPRIGHT[name[-1]](expected)
  pixels = codec.decode_image(data)
  assert pixels.dtype == np.uint8
  np.testing.assert_allclose(pixels, expected, atol=1)


@pytest.mark.parametrize('name', mutants.refused())
def test_invalid_images_are_refused_quickly(name):
  start = time.monotonic()
  with pytest.raises(codec.ImageError) as caught:
    codec.decode_image(mutants.refused()[name])
  assert time.monotonic() - start < TIME
  assert str(caught.value)


FUZZ = """
import resource, sys, time
import mutants
import numpy as np
from rahf.data.images import codec, inputs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read = refused = 0
slowest = 0.0
for name, data in mutants.mutated(int(sys.argv[1])):
  start = time.monotonic()
  try:
    pixels = inputs.read_pixels(data)
  except codec.ImageError as error:
    assert str(error), name
    refused += 1
  else:
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, name
    assert max(pixels.shape) <= codec.MAX_SIDE, name
    read += 1
  slowest = max(slowest, time.monotonic() - start)
  try:
    heat = codec.decode_map(data)
    assert 0 <= heat.min() and heat.max() <= 1, name
  except codec.ImageError:
    pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(read, refused, slowest, (after - before) * 1024)
"""


def test_mutated_images(long):
  """In a separate process, which a decoder might crash."""
  count = 10_000 if long else 500
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', FUZZ, str(count)],
    capture_output=True,
    text=True,
    env={'PYTHONPATH': ':'.join(sys.path), 'PATH': ''},
    timeout=1800,
  )
  assert done.returncode == 0, done.stderr
  read, refused, slowest, memory = map(float, done.stdout.split())
  assert read + refused == count
  # Otherwise the mutations are too weak or too strong to test anything.
  assert min(read, refused) > 0.1 * count
  assert slowest < TIME
  assert memory < MEMORY


def test_intact_pictures_with_odd_metadata(long):
  """None is refused, and metadata changes nothing but the orientation."""
  count = 10_000 if long else 600
  code = 'import sys, odd_metadata; odd_metadata.check(int(sys.argv[1]))'
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', code, str(count)],
    capture_output=True,
    text=True,
    env={'PYTHONPATH': ':'.join(sys.path), 'PATH': ''},
    timeout=1800,
  )
  assert done.returncode == 0, done.stderr
  checked, upright = map(int, done.stdout.split())
  assert checked == count
  # Most changes of EXIF do not affect the orientation.
  assert upright > 0.3 * count


# Prompts

PROMPTS = {
  'empty': '',
  'blanks': ' \t\n ',
  'punctuation': ',,, .;:!?"',
  '10,000 words': 'a red circle ' * 3_334,
  'one long word': 'a' * 50_000,
  'control characters': 'a\x00b\x07 c\x1b[31m d\x7f',
  'right to left': 'قطة حمراء \u202e reversed',
  'HTML': '<script>alert(1)</script> & "quotes"',
  'JSON': '{"a": [1, null, "\\u0000"]}',
  'emoji': 'a 🐈\u200d⬛ and 👩🏽\u200d🚀 🏳️\u200d🌈',
  'no-break space': 'a\u00a0cat\u200b sleeps',
  'combining': 'Z͑ͫa̴l̵g̷o',
  'marks': '_0 a_0 _0_0 cat_0',
}
OPTIONS = PipelineOptions(image_size=16, text_length=32, target_length=40)


def check_prompt(tokenizer, prompt):
  tokens = tuple(label_words.label_tokens(prompt))
  spans = label_words.label_spans(prompt)
  assert tokens == tuple(prompt[start:end] for start, end in spans)
  shown = label_words.word_spans(prompt)
  ends = tokenizer.encode(prompt, shown).word_ends
  assert len(ends) == len(shown)
  assert all(a < b for a, b in zip((0, *ends), ends, strict=False))
  labels = tuple(i % 2 for i in range(len(tokens)))
  record = make_record(0, prompt=prompt, tokens=tokens, keyword_labels=labels)
  row = decode_record(record, tokenizer, OPTIONS)
  for name, length in (('text', 32), ('target', 40)):
    ids = np.atleast_2d(row[name])
    assert ids.shape[-1] == length
    assert ((ids >= 0) & (ids < tokenizer.size)).all()
    # It ends once, and only padding follows.
    assert ((ids == EOS).sum(-1) == 1).all()
    assert (ids[:, 1:][ids[:, :-1] == EOS] == 0).all()
  if not row['truncated'] and tokens:
    found = tokenizer.read_marks(tokenizer.encode(prompt), row['target'])
    assert found.labels == labels


@pytest.mark.parametrize('name', PROMPTS)
def test_odd_prompts(tokenizer, name):
  check_prompt(tokenizer, PROMPTS[name])


def test_any_prompt(tokenizer, many):
  @many
  @given(st.text())
  def check(prompt):
    check_prompt(tokenizer, prompt)

  check()


# Records


def check_record(data):
  try:
    record = parse_record(data)
  except InputError:
    return
  assert isinstance(record, schema.Record)
  assert isinstance(record.uid, str)


def test_any_bytes_as_a_record(many):
  @many
  @given(st.binary())
  def check(data):
    check_record(data)

  check()


def test_damaged_records(many):
  whole = features.encode_record(make_record(0))

  @many
  @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255))))
  def check(changes):
    data = bytearray(whole)
    for place, value in changes:
      data[place] = value
    check_record(bytes(data))
    check_record(bytes(data[: changes[0][0]]) if changes else b'')

  check()
