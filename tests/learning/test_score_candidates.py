"""Scoring of candidates, with models whose scores are planted."""

import json
import math
import types

import numpy as np
import pytest

from rahf.data.images import codec, inputs
from rahf.data.sources.source import open_source
from rahf.inference.feedback import Feedback
from rahf.inference.scorer import Example
from rahf.learning import score_candidates
from rahf.learning.score_expression import parse


class Planted:
  """Its score is the first pixel's level, 255 means NaN; its batches are of two."""

  buckets = (2,)
  outputs = types.SimpleNamespace(scores={'level': 'from 0 to 255'})

  def __init__(self):
    self.prompts = []

  def prepare(self, image, prompt):
    if prompt == 'broken':
      raise RuntimeError
    return Example(image, prompt, *image.shape[:2], image, prompt.split())

  def score_examples(self, examples, *, scores_only):
    assert scores_only
    assert len(examples) <= 2
    self.prompts += [one.prompt for one in examples]
    for one in examples:
      assert one.image is None  # Else pixels would stay in memory.
      level = int(one.pixels[0, 0, 0])
      scores = {'level': math.nan if level == 255 else float(level)}
      yield Feedback(one.prompt, (1, 1), scores, len(one.row) > 2, None)


@pytest.fixture
def folder(tmp_path):
  for level in (1, 2, 3, 255):
    pixels = np.full((4, 6, 3), level, np.uint8)
    (tmp_path / f'{level}.png').write_bytes(codec.encode_png(pixels))
  return tmp_path


def score(folder, rows, column='', models=None, by='level'):
  """Returns what the rows of a table get."""
  path = folder / 't.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  source = open_source(str(path), extra=column or score_candidates.ORIGINAL)
  models = models or {'': Planted()}
  expression = parse(by, score_candidates.known_scores(models))
  return [*score_candidates.score(source, models, expression, column)]


def test_what_has_no_scores_says_why(folder):
  model = Planted()
  found = score(
    folder,
    [
      {'image': '3.png', 'prompt': 'a red ring', 'original': 'ring'},
      {'image': '255.png', 'prompt': 'ring'},
      {'image': '2.png', 'prompt': 'ring', 'original': ' '},
      {'image': '4.png', 'prompt': 'a', 'original': 'ring'},
      {'image': '1.png', 'prompt': 'broken'},
      {'image': '1.png', 'prompt': 'a red ring', 'original': None},
      {'image': '1.png', 'prompt': math.nan},
    ],
    models={'': model},
  )
  candidates = [one.candidate for one in found]
  assert [one.position for one in candidates] == [*range(7)]
  originals = ['ring', 'ring', '', 'ring', 'broken', 'a red ring', '']
  assert [one.original for one in candidates] == originals
  assert [one.value for one in candidates if not one.error] == [3, 1]
  assert all(math.isnan(one.value) for one in candidates if one.error)
  assert candidates[0].scores == {'level': 3}
  errors = [one.error for one in candidates]
  assert errors[:3] == ['', 'its scores are not finite', "its original is ' '"]
  assert errors[3].endswith('4.png cannot be read: No such file or directory')
  assert errors[4:] == ['RuntimeError', '', 'its prompt is NaN']
  assert model.prompts == ['ring', 'ring', 'a red ring']
  assert [one.truncated for one in found] == [(), (), (), (), (), ('',), ()]
  assert [bool(one.thumbnail) for one in found] == [1, 1, 0, 0, 0, 1, 0]


def test_a_column_that_was_asked_for_must_be_there(folder):
  rows = [{'image': '1.png', 'prompt': 'ring', 'theme': 'red'}]
  rows.append({'image': '2.png', 'prompt': 'ring'})
  first, second = (one.candidate for one in score(folder, rows, 'theme'))
  assert (first.original, first.value) == ('red', 1)
  assert (second.original, second.error) == ('', 'its theme is None')


def test_a_value_that_is_too_large_is_an_error(folder):
  rows = [{'image': f'{level}.png', 'prompt': 'ring'} for level in (1, 3)]
  first, second = (one.candidate for one in score(folder, rows, by='1e308*level'))
  assert (first.value, first.error) == (1e308, '')
  assert second.error == 'its value is inf; make the weights smaller'
  assert math.isnan(second.value)


def test_several_models_decode_an_image_once(folder, monkeypatch):
  read, real = [], inputs.read_pixels
  monkeypatch.setattr(
    inputs, 'read_pixels', lambda image: read.append(image) or real(image)
  )
  path = folder / 't.csv'
  path.write_text('image,prompt\n1.png,a\n2.png,b\n3.png,c\n')
  models = {'a': Planted(), 'b': Planted()}
  expression = parse('2*a.level - b.level', score_candidates.known_scores(models))
  source = open_source(str(path), extra='original')
  found = [*score_candidates.score(source, models, expression)]
  assert [one.candidate.value for one in found] == [1, 2, 3]
  assert found[2].candidate.scores == {'a.level': 3, 'b.level': 3}
  assert len(read) == 3
