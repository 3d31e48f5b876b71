"""The threshold of constrained decoding in an evaluation."""

import json

import pytest
from etils import epath

from rahf.errors import InputError
from rahf.evaluation.samples import THRESHOLD
from rahf.tasks.feedback_evaluator import read_threshold


def test_the_threshold_of_the_split_that_was_evaluated(tmp_path):
  (tmp_path / 'dev-3.json').write_text(json.dumps({THRESHOLD: 0.25}))
  (tmp_path / 'dev-4.json').write_text(json.dumps({THRESHOLD: 0.75}))
  assert read_threshold(epath.Path(tmp_path), 'dev', 3) == 0.25


def test_a_split_without_annotated_words_has_none(tmp_path):
  (tmp_path / 'dev-3.json').write_text('{}')
  assert read_threshold(epath.Path(tmp_path), 'dev', 3) == 0.5


def test_a_threshold_that_is_damaged_is_reported(tmp_path):
  (tmp_path / 'dev-3.json').write_text('{')
  with pytest.raises(InputError, match=r'dev-3\.json is damaged .*evaluate again'):
    read_threshold(epath.Path(tmp_path), 'dev', 3)
