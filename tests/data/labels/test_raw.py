"""Raw annotations are written and read, and invalid ones refused."""

import json
import math

import pytest
from etils import epath

from rahf.data.labels import raw
from rahf.data.labels.consolidate import Annotation
from rahf.errors import InputError

ROW = {
  'uid': 'a',
  'annotator': '0',
  'implausibility_points': [[0.5, 0.25]],
  'misalignment_points': [],
  'misaligned_words': [0, 3],
  'scores': {'plausibility': 4, 'overall': 1},
}


def read(tmp_path, *rows: dict | str):
  path = epath.Path(tmp_path) / 'x.jsonl'
  lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text('\n'.join(lines))
  return raw.read(path)


def test_a_line_is_one_annotator_of_one_image(tmp_path):
  found = read(tmp_path, ROW, ROW | {'uid': 'b'}, ROW | {'scores': {}})
  assert found.keys() == {'a', 'b'}
  first, second = found['a']
  assert first == Annotation([(0.5, 0.25)], [], [0, 3], [4, None, None, 1])
  assert second.scores == [None] * 4
  assert second.trust == 1


def test_missing_fields_were_not_asked(tmp_path):
  (annotation,) = read(tmp_path, {'uid': 'a', 'trust': 0.5})['a']
  assert annotation == Annotation(None, None, None, [None] * 4, 0.5)


def test_write_and_read(tmp_path):
  images = {
    'one': [
      Annotation([(0.1, 0.2), (1.0, 0.0)], [(0.5, 0.5)], [2], [1, 2, 3, 4]),
      Annotation([], None, None, [None, 2, None, 5], 0.25),
    ],
    'two': [Annotation([], [], [0], [5, 5, 5, 5])],
  }
  path = raw.path(tmp_path, 'dev')
  raw.write(path, images.items())
  assert raw.read(path) == images
  assert [file.name for file in tmp_path.iterdir()] == ['dev.annotations.jsonl']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'scores': {'beauty': 3}}, r"{'beauty'} are not in \('plausibility"),
    ({'scores': {'overall': '4'}}, "score '4' is not between 1 and 5"),
    ({'scores': {'overall': True}}, 'score True is not between 1 and 5'),
    ({'scores': {'overall': 17}}, 'score 17 is not between 1 and 5'),
    ({'scores': 3}, 'scores is 3, not an object'),
    ({'scores': {'overall': 10**400}}, 'the number 10+ is too large'),
    ({'trust': 10**400}, 'the number 10+ is too large'),
    # Not as if nothing had been marked.
    ({'implausibility_points': ''}, "'' is not a list of points"),
    ({'implausibility_points': {}}, '{} is not a list of points'),
    ({'implausibility_points': [3]}, r'point 3 is not \[x, y\]'),
    ({'misaligned_words': 3}, '3 is not a list of words'),
    ({'implausibility_points': [[1, 2, 3]]}, r'point \[1, 2, 3\] is not \[x, y\]'),
    ({'misalignment_points': [[5, 0.5]]}, r'point \[5, 0.5\] is not'),
    ({'misalignment_points': [[math.nan, 0.5]]}, 'NaN is not a valid JSON number'),
    ({'misaligned_words': [1.5]}, 'word 1.5 is neither a position nor a word'),
    ({'misaligned_words': [-1]}, 'word -1 is neither'),
    ({'misaligned_words': '12'}, "'12' is not a list of words"),
    ({'trust': 0}, 'trust 0 is not positive'),
    ({'misalinged_words': [1]}, r"{'misalinged_words'} are not in \('uid"),
    ({'uid': 3}, 'uid 3 is not text'),
  ],
)
def test_the_invalid_line_is_named(tmp_path, change, message):
  with pytest.raises(InputError, match=message) as error:
    read(tmp_path, ROW, ROW | change)
  assert ':2 is not an annotation' in str(error.value)


@pytest.mark.parametrize('line', ['{', '[]', '{"annotator": "a"}', '3'])
def test_other_lines_are_refused(tmp_path, line):
  with pytest.raises(InputError, match=':1 is not an annotation'):
    read(tmp_path, line)


def test_null_fields_were_not_asked(tmp_path):
  row = dict.fromkeys(raw.FIELDS) | {'uid': 'a'}
  (annotation,) = read(tmp_path, row)['a']
  assert annotation == Annotation(None, None, None, [None] * 4)
  scores = {'plausibility': None, 'overall': 3}
  (annotation,) = read(tmp_path, {'uid': 'a', 'scores': scores})['a']
  assert annotation.scores == [None, None, None, 3]


def test_lines_end_at_newlines_only(tmp_path):
  path = epath.Path(tmp_path) / 'x.jsonl'
  # Python's `splitlines` would split here; JSON allows them in a string.
  uids = ['a\u2028b', 'a\u2029b', 'a\x85b']
  text = '\r\n'.join(f'{{"uid": "{uid}"}}' for uid in uids)
  path.write_bytes(text.encode('utf-8-sig'))
  assert [*raw.read(path)] == uids


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{"uid": "a"}'.encode('utf-16'), ':1 .* it is UTF-16; save it as UTF-8'),
    ('{"uid": "a"}'.encode('utf-16-le'), ':1 .* NUL characters, as in UTF-16'),
    (b'{}\n{"uid": "gr\xe4y"}', ':1 .* it has no uid'),
    (b'{"uid": "a"}\n{"uid": "gr\xe4y"}', ':2 .* byte 0xe4 .* is not UTF-8'),
    (b'version https://git-lfs.github.com/spec/v1\nsize 1\n', 'is a Git LFS pointer'),
  ],
)
def test_other_files_are_refused(tmp_path, content, message):
  path = epath.Path(tmp_path) / 'x.jsonl'
  path.write_bytes(content)
  with pytest.raises(InputError, match=rf'x\.jsonl{message}|x\.jsonl {message}'):
    raw.read(path)
