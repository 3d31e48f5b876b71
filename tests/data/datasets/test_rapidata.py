"""Rapidata's sets, with the quirks of their columns."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rahf.data import schema
from rahf.data.datasets.rapidata import prepare_rapidata
from rahf.data.images.codec import decode_map, encode_png
from rahf.data.storage.records import open_split
from rahf.errors import InputError

PICTURE = encode_png(np.full((8, 16, 3), 90, np.uint8))
HEAT = np.zeros((4, 6), np.float16)
HEAT[1, 2] = 0.5
PROMPT = 'A red cat, sitting. On a mat'
WORDS = [
  *(['A', 0.0], ['red', 1.5], ['cat,', 3.0], ['sitting.', 0.5]),
  *(['On', 0.0], ['a', 0.25], ['mat', 0.0]),
]
NAN = math.nan


def row(**changes):
  return {
    'image': {'bytes': PICTURE, 'path': None},
    'prompt': PROMPT,
    'word_scores': json.dumps([*WORDS, ['[No_mistakes]', 1.0]]),
    'alignment_score': 3.0,
    'alignment_score_norm': 0.9,
    'coherence_score': 5.0,
    'coherence_score_norm': 0.9,
    'style_score': 1.0,
    'style_score_norm': 0.0,
    'alignment_heatmap': HEAT.tolist(),
    'coherence_heatmap': None,
  } | changes


def prepare(tmp_path, *rows, heat=None, **options):
  folder = tmp_path / 'files'
  folder.mkdir(exist_ok=True)
  heat = heat or pa.list_(pa.list_(pa.float16()))
  fields = {name: None for row in rows for name in row}
  types = {name: heat for name in fields if name.endswith('_heatmap')}
  columns = {
    name: pa.array([row.get(name) for row in rows], types.get(name)) for name in fields
  }
  pq.write_table(pa.table(columns), folder / 'part-0.parquet')
  settings = {'name': 'rapidata', 'files': folder, 'dev': 0, 'test': 0} | options
  return prepare_rapidata(tmp_path / 'out', **settings)


def only(tmp_path, *rows, **options):
  directory, report = prepare(tmp_path, *rows, **options)
  return list(open_split(directory, 'train')), report


def test_a_row_of_the_small_set(tmp_path):
  (record,), report = only(tmp_path, row())
  assert report.lines == []
  assert record.uid == 'part-0-000000'
  assert record.image == PICTURE
  assert record.prompt == PROMPT
  assert record.tokens == ('A', 'red', 'cat', 'sitting', 'On', 'a', 'mat')
  # By the fixed scale, not that of the data set.
  np.testing.assert_equal(record.scores, (1.0, 0.5, 0.0, NAN))
  # Not asked, as opposed to clean.
  assert record.implausibility_map == b''
  np.testing.assert_allclose(decode_map(record.misalignment_map), HEAT, atol=1 / 500)
  # The total is 4: 3 for the most marked word and 1 for no mistake.
  np.testing.assert_allclose(
    record.keyword_shares, (0, 0.375, 0.75, 0.125, 0, 0.0625, 0)
  )
  assert record.keyword_labels == (1, 1, 0, 1, 1, 1, 1)


@pytest.mark.parametrize(
  ('prompt', 'tokens', 'shares'),
  [
    # In a label token alone, with another in front, with another after it.
    ('a red\ncircle', ('a', 'red\ncircle'), (0.025, 0.75)),
    ('a red \tcircle', ('a', 'red', '\tcircle'), (0.025, 0.05, 0.75)),
    ('a\u3000red circle\n', ('a\u3000red', 'circle\n'), (0.05, 0.75)),
    ('\u00a0 a red\u00a0circle', ('\u00a0', 'a', 'red\u00a0circle'), (0, 0.025, 0.75)),
    ('a red\r\ncircle', ('a', 'red\r\ncircle'), (0.025, 0.75)),
    ('a red\u200b circle', ('a', 'red\u200b', 'circle'), (0.025, 0.05, 0.75)),
  ],
)
def test_misaligned_words_next_to_any_white_space(tmp_path, prompt, tokens, shares):
  """A label token has the highest share of its words: 3 of 3 and 1, 0.2 and 0.1."""
  scores = [['a', 0.1], ['red', 0.2], ['circle', 3.0], ['[No_mistakes]', 1.0]]
  (record,), report = only(tmp_path, row(prompt=prompt, word_scores=json.dumps(scores)))
  assert report.lines == []
  assert record.tokens == tokens
  np.testing.assert_allclose(record.keyword_shares, shares)
  assert record.keyword_labels == tuple(int(share != 0.75) for share in shares)


def test_the_first_of_two_words_in_one_label_token(tmp_path):
  scores = [['a', 0.0], ['red', 3.0], ['circle', 0.0], ['[No_mistakes]', 1.0]]
  wrong = row(prompt='a red\ncircle', word_scores=json.dumps(scores))
  (record,), _ = only(tmp_path, wrong)
  assert record.keyword_shares == (0, 0.75)
  assert record.keyword_labels == (1, 0)


def test_the_threshold(tmp_path):
  (record,), _ = only(tmp_path, row(), threshold=0.3)
  assert record.keyword_labels == (1, 0, 0, 1, 1, 1, 1)


def test_column_names_and_missing_maps_of_the_large_set(tmp_path):
  """Missing maps are arrays of nulls, and images are bytes."""
  renamed = row(image=PICTURE, image_name='folder/abc.png', sentence=PROMPT)
  del renamed['prompt']
  renamed['coherence_heatmap'] = [[None] * 6] * 4
  (record,), report = only(tmp_path, renamed)
  assert report.lines == []
  assert record.uid == 'folder/abc'
  assert record.prompt == PROMPT
  assert record.implausibility_map == b''
  assert record.misalignment_map


@pytest.mark.parametrize(
  ('heat', 'value'),
  [
    (pa.list_(pa.list_(pa.float32())), [None] * 4),
    (pa.list_(pa.float16()), [None] * 4),
    (pa.list_(pa.list_(pa.float32())), []),
  ],
)
def test_other_forms_of_missing_maps(tmp_path, heat, value):
  missing = row(coherence_heatmap=value, alignment_heatmap=None)
  (record,), report = only(tmp_path, missing, heat=heat)
  assert report.lines == []
  assert record.implausibility_map == record.misalignment_map == b''


def test_a_map_with_a_channel(tmp_path):
  deep = row(alignment_heatmap=[HEAT.tolist()])
  (record,), _ = only(tmp_path, deep, heat=pa.list_(pa.list_(pa.list_(pa.float32()))))
  np.testing.assert_allclose(decode_map(record.misalignment_map), HEAT, atol=1 / 500)


@pytest.mark.parametrize(
  ('change', 'reason', 'detail'),
  [
    ({'word_scores': '[["A", 1], ["dog", 2]]'}, 'label_mismatch', "'dog' is not in"),
    ({'word_scores': 'The cat'}, 'invalid_label', 'The cat'),
    ({'word_scores': '[3]'}, 'invalid_label', r'\[3\]'),
    ({'word_scores': '[["A", NaN]]'}, 'invalid_label', 'not a valid JSON number'),
    ({'word_scores': '[["A", -1]]'}, 'invalid_label', 'below 0'),
    ({'style_score': 0.5}, 'invalid_score', 'aesthetics 0.5'),
    ({'alignment_heatmap': [[0.5, 2.0]]}, 'unreadable_map', 'not all in'),
    ({'alignment_heatmap': [[0.5, 0.2], [0.1]]}, 'unreadable_map', 'misalignment'),
    # Eight values, but not two rows of four.
    ({'alignment_heatmap': [[0.5] * 3, [0.1] * 5]}, 'unreadable_map', 'misalignment'),
  ],
)
def test_only_invalid_labels_are_masked(tmp_path, change, reason, detail):
  import re

  (record, *_), report = only(tmp_path, row(**change), row(), row())
  ((_, _, found, text),) = report.lines
  assert found == reason
  assert re.search(detail, text)
  masked = {
    'label_mismatch': record.keyword_labels == record.keyword_shares == (),
    'invalid_label': record.keyword_labels == record.keyword_shares == (),
    'invalid_score': math.isnan(record.scores[schema.SCORES.index('aesthetics')]),
    'unreadable_map': record.misalignment_map == b'',
  }
  assert masked[reason]


def test_an_unreadable_image_is_left_out(tmp_path):
  records, report = only(tmp_path, row(image={'bytes': b'no', 'path': None}), row())
  assert [record.uid for record in records] == ['part-0-000001']
  assert [line.reason for line in report.lines] == ['unreadable_image']


def test_prompts_decide_the_split(tmp_path):
  """All images of a prompt are in one split, in any order of rows."""
  rows = [row(prompt=f'{PROMPT} {i % 40}', word_scores=None) for i in range(80)]
  directory, _ = prepare(tmp_path, *rows, dev=0.2, test=0.2)
  prompts = {
    split: [record.prompt for record in open_split(directory, split)]
    for split in schema.SPLITS
  }
  assert sum(map(len, prompts.values())) == 80
  assert all(len(set(found)) * 2 == len(found) for found in prompts.values())
  assert len(prompts['train']) > len(prompts['dev'])


def test_nobody_marked_anything(tmp_path):
  text = json.dumps([[word, 0.0] for word, _ in WORDS])
  (record,), _ = only(tmp_path, row(word_scores=text))
  assert record.keyword_labels == (1,) * 7


def test_what_is_refused(tmp_path):
  with pytest.raises(InputError, match=r'no \.parquet file below it'):
    prepare_rapidata(tmp_path / 'out', name='x', files=tmp_path)
  with pytest.raises(
    InputError, match=r'no column word_scores, .*, only image, prompt'
  ):
    prepare(tmp_path, {'image': PICTURE, 'prompt': 'a cat'})
  with pytest.raises(InputError, match='leave nothing to train on'):
    prepare(tmp_path, row(), dev=0.5, test=0.5)
  (tmp_path / 'files/part-0.parquet').write_bytes(b'PAR1')
  with pytest.raises(InputError, match='not a complete parquet file'):
    prepare_rapidata(tmp_path / 'out', name='x', files=tmp_path / 'files')


def test_duplicate_names_and_rows_without_a_prompt(tmp_path):
  """The first of two equal names is kept; dots and folders are part of the name."""
  rows = [
    row(image_name='m0/x_v1.0.png'),
    row(image_name='m0/x_v1.1.png'),
    row(image_name='m1/x_v1.0.png'),
    row(image_name='m0/x_v1.0.png'),
    row(image_name='none', prompt=None),
    row(image_name='blank', prompt='\n\u00a0'),
  ]
  records, report = only(tmp_path, *rows)
  assert {record.uid for record in records} == {'m0/x_v1.0', 'm0/x_v1.1', 'm1/x_v1.0'}
  assert [(line.uid, line.reason) for line in report.lines] == [
    ('m0/x_v1.0', 'duplicate_label'),
    ('none', 'missing_prompt'),
    ('blank', 'missing_prompt'),
  ]
