"""Tables of attributes and files of questions, as users write them."""

import json

import numpy as np
import pytest

from rahf.data.attributes import table
from rahf.data.attributes.questions import read_questions
from rahf.errors import InputError


def write(folder, text, name='attributes.csv'):
  path = folder / name
  path.write_text(text)
  return path


def test_what_is_written_is_read(tmp_path):
  text = (
    'uid,photo,photo_confidence,category,category_confidence\n'
    'b,yes,0.9000,"a, b",0.5000\na,,,human,1.0000\n'
  )
  found = table.read(write(tmp_path, text))
  assert found.uids == ('b', 'a')
  assert found.answers == {'photo': ('yes', ''), 'category': ('a, b', 'human')}
  np.testing.assert_array_equal(found.confidences['photo'], [0.9, 1])
  assert table.to_csv(found) == text
  table.write(tmp_path / 'again.csv', found)
  assert (tmp_path / 'again.csv').read_text() == text


def test_a_table_without_confidences_and_with_other_columns(tmp_path):
  lines = [
    {'uid': 'a', 'prompt': 'a cat', 'photo': True},
    {'uid': 'b', 'prompt': 'a dog', 'photo': None},
  ]
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  found = table.read(write(tmp_path, text, 'answers.jsonl'))
  assert found.answers == {'photo': ('yes', '')}
  np.testing.assert_array_equal(found.confidences['photo'], [1, 1])


def test_columns_of_many_values_are_not_attributes(tmp_path):
  rows = [f'{n},{n},{n % 2}' for n in range(60)]
  found = table.read(write(tmp_path, '\n'.join(['uid,seed,odd', *rows])))
  assert [*found.answers] == ['odd']
  text = '\n'.join(['uid,seed', *(f'{n},{n}' for n in range(60))])
  with pytest.raises(InputError, match=r'every column has more than 50 different'):
    table.read(write(tmp_path, text))


def test_uids_with_and_without_the_ending_of_a_file(tmp_path):
  found = table.read(write(tmp_path, 'file_name,kind\na.png,x\nb/c.jpg,y\nv1.5,z\n'))
  assert [*found.answers] == ['kind']
  taken = found.of(['b/c', 'a.webp', 'v1.5'], 'it')
  assert taken.uids == ('b/c', 'a.webp', 'v1.5')
  assert taken.answers == {'kind': ('y', 'x', 'z')}
  # Two images, or two rows, of the same name are not told apart.
  assert found.rows_of(['a.webp', 'a.jpg']) == {}
  assert found.rows_of(['a.png', 'a.jpg']) == {'a.png': 0}
  two = table.read(write(tmp_path, 'uid,kind\na.png,x\na.jpg,y\n'))
  assert two.rows_of(['a']) == {}


def test_rows_in_the_order_of_images(tmp_path):
  found = table.read(write(tmp_path, 'uid,kind\na,x\nb,y\nc,z\n'))
  assert found.of(['c', 'a'], 'it').answers == {'kind': ('z', 'x')}
  with pytest.raises(
    InputError, match=r"no attributes of 1 of 2 images, the first 'd'"
  ):
    found.of(['a', 'd'], 'it')
  with pytest.raises(InputError, match=r"2 of 2 images, the first 'e'; it has 'a'; it"):
    found.of(['e', 'd'], 'it')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('name,kind\na,x\n', r'needs the column uid and one column or more of attributes'),
    ('uid,prompt\na,x\n', r'one column or more of attributes; it has uid, prompt'),
    ('uid,kind\na,x\na,y\n', r"line 3: the image 'a' stands twice"),
    ('uid,kind\n', r'has no rows'),
    (
      'uid,kind,kind_confidence\na,x,2\n',
      r"line 2, kind_confidence is '2', not a number from 0 to 1",
    ),
    ('uid,kind,kind_confidence\na,x,nan\n', r'not a number from 0 to 1'),
  ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    table.read(write(tmp_path, text))


def test_the_papers_questions():
  questions = read_questions()
  assert [*questions['photorealistic']] == ['yes', 'no']
  assert [*questions['category']] == [
    *('human', 'animal', 'object', 'indoor scene', 'outdoor scene')
  ]


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ('{', r'cannot be read'),
    ('[]', r'has no questions'),
    ('{"A b": {}}', r"the question 'A b' must consist of small letters"),
    ('{"uid": {}}', r"the question 'uid' .*cannot end in _confidence, or be one of"),
    ('{"a": {"x": ["t"]}}', r'a needs two answers or more'),
    ('{"a": {"x": ["t"], "y": []}}', r"a, answer 'y': give a list of texts"),
    ('{"a": {"x": ["t"], "y": [3]}}', r'give a list of texts'),
  ],
)
def test_questions_that_cannot_be_read(tmp_path, content, message):
  with pytest.raises(InputError, match=message):
    read_questions(write(tmp_path, content, 'questions.json'))
