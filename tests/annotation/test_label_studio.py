"""Label Studio's format, both ways."""

import json
import pathlib
import random
import xml.etree.ElementTree as ElementTree

import projects
import pytest

from rahf import annotate
from rahf.annotation import answering, items, label_studio, project
from rahf.annotation.exports import answers
from rahf.annotation.settings import Settings
from rahf.data import label_words, schema
from rahf.errors import InputError

# The emoji is two UTF-16 units.
PROMPT = 'a \U0001f600 red cat, asleep'


@pytest.fixture
def rich(tmp_path):
  images = projects.write_images(tmp_path, 2)
  projects.write_table(tmp_path, [{'uid': f'0{n}', 'prompt': PROMPT} for n in range(2)])
  rows = items.read('rich', images, tmp_path / 'prompts.csv').items

  def make(name: str):
    store = project.open_store(tmp_path / name, new=True)
    return project.create(store, Settings('rich', str(images), gold=0), rows)

  return make


def values(made) -> list[tuple]:
  return [(one.item['uid'], one.value, one.seconds) for one in answers(made)]


def test_an_export_comes_back(rich, tmp_path):
  made = rich('project')
  for name in ('ann', 'ben'):
    person = projects.enter(made, name)
    while task := answering.next_task(made, person):
      value = projects.rich_value(task['item'], misaligned_words=[1, 4])
      answering.submit(made, person, task['lease'], projects.answer(value))
  out = tmp_path / 'studio'
  command = ['export', str(tmp_path / 'project'), '--label_studio', f'--out={out}']
  assert annotate.main(command) == 0
  tasks = json.loads((out / 'tasks.json').read_text())
  (first, *_), data = tasks[0]['annotations'], tasks[0]['data']
  assert data == {'image': '/data/local-files/?d=00.png', 'prompt': PROMPT, 'uid': '00'}
  point = first['result'][0]
  assert point['type'] == 'keypointlabels'
  assert point['value'] == {
    'x': 25.0,
    'y': 50.0,
    'width': 3.75,
    'keypointlabels': ['implausibility'],
  }
  words = [one['value'] for one in first['result'] if one['type'] == 'labels']
  units = PROMPT.encode('utf-16-le')
  for word in words:
    text = units[2 * word['start'] : 2 * word['end']].decode('utf-16-le')
    assert text == word['text']
  assert [word['text'] for word in words] == ['\U0001f600', 'asleep']
  config = ElementTree.fromstring((out / 'config.xml').read_text())
  assert any(one.get('value', '').startswith('Nothing to mark: ') for one in config)
  names = {one.get('name') for one in config.iter() if one.get('name')}
  used = {one['from_name'] for one in first['result']}
  assert used <= names
  other = rich('other')
  command = ['import', str(tmp_path / 'other'), str(out / 'tasks.json')]
  assert annotate.main([*command, '--label_studio']) == 0
  assert annotate.main([*command, '--label_studio']) == 0
  assert values(other) == values(made)


def through_label_studio(path: pathlib.Path) -> list:
  """Returns tasks as Label Studio exports them after it has imported them.

  It numbers them anew, and keeps of an annotation what is here.
  """
  tasks = json.loads(path.read_text())
  for number, task in enumerate(tasks, 100):
    task['id'] = number
    for one in task['annotations']:
      kept = {name: one[name] for name in ('was_cancelled', 'lead_time', 'result')}
      new = {'id': one['id'] + 100, 'unique_id': f'{one["id"]}', 'completed_by': 1}
      task['annotations'] = [{**kept, **new, 'import_id': one['id']}]
  return tasks


def test_our_own_answers_are_known_again(rich, tmp_path):
  made = rich('project')
  person = projects.enter(made, 'Ann')
  chance = random.Random(0)
  while task := answering.next_task(made, person):
    points = [[chance.random(), chance.random()] for _ in range(50)]
    value = projects.rich_value(implausibility_points=points)
    answering.submit(made, person, task['lease'], projects.answer(value))
  assert label_studio.export(made, tmp_path / 'studio') == 2
  path = tmp_path / 'studio/tasks.json'
  assert label_studio.load(made, path) == 0
  tasks = through_label_studio(path)
  path.write_text(json.dumps(tasks))
  assert label_studio.load(made, path) == 0
  # What was added there is new; it has the number of an answer of ours by chance.
  added = tasks[0]['annotations'][0] | {'unique_id': 'x', 'import_id': None, 'id': 1}
  tasks[0]['annotations'].append(added)
  path.write_text(json.dumps(tasks))
  assert label_studio.load(made, path) == 1
  other = rich('other')
  assert label_studio.load(other, path) == 3
  assert [one.name for one in answers(other)] == ['Ann', 'label studio 1', 'Ann']
  tasks[1]['annotations'][0]['result'].pop(0)
  path.write_text(json.dumps(tasks))
  with pytest.raises(InputError, match=r'task 2 .*: Ann has answered 01 otherwise'):
    label_studio.load(made, path)


def rating(name: str, score: int = 3) -> dict:
  return {'from_name': name, 'type': 'rating', 'value': {'rating': score}}


SCORES = [*map(rating, schema.SCORES)]


def written(
  tmp_path, result: list, data: dict | None = None, **changes
) -> pathlib.Path:
  annotation = {'id': 7, 'completed_by': 3, 'result': result, 'lead_time': 12.5}
  task = {'id': 1, 'data': {'uid': '00', 'prompt': PROMPT} | (data or {})}
  task['annotations'] = [annotation | changes]
  path = tmp_path / 'tasks.json'
  path.write_text(json.dumps([task]))
  return path


def test_spans_of_several_words(rich, tmp_path):
  """A span may start within a word and hold several."""
  made = rich('project')
  start = PROMPT.index('ed cat') + 1  # UTF-16 units, after the emoji.
  span = {'start': start, 'end': start + 6, 'text': 'ed cat', 'labels': ['misaligned']}
  result = [{'from_name': 'words', 'type': 'labels', 'value': span}, *SCORES]
  assert label_studio.load(made, written(tmp_path, result)) == 1
  ((_, value, seconds),) = values(made)
  tokens = label_words.label_tokens(PROMPT)
  assert [tokens[n] for n in value['misaligned_words']] == ['red', 'cat']
  assert value['nothing'] == ['implausibility_points', 'misalignment_points']
  assert seconds == 12.5


def test_cancelled_annotations_are_skips(rich, tmp_path):
  made = rich('project')
  path = written(tmp_path, [], was_cancelled=True, completed_by={'id': 4})
  assert label_studio.load(made, path) == 1
  assert values(made) == []


@pytest.mark.parametrize(
  ('result', 'problem'),
  [
    ([], 'the score plausibility is missing'),
    ([rating('plausibility', 9)], 'scores: give 1 to 5'),
    ([{'type': 'rating'}], 'is not in the format'),
    (
      [{'type': 'keypointlabels', 'value': {'x': 1, 'y': 2, 'keypointlabels': ['?']}}],
      'is not in the format',
    ),
    (
      [{'type': 'labels', 'value': {'start': 0, 'end': 1, 'labels': ['colour']}}],
      "words have the label 'colour', not misaligned",
    ),
  ],
)
def test_what_does_not_fit_is_named(rich, tmp_path, result, problem):
  made = rich('project')
  with pytest.raises(InputError, match=rf'tasks.json, task 1 .*{problem}'):
    label_studio.load(made, written(tmp_path, result))
  assert values(made) == []


@pytest.mark.parametrize(
  ('data', 'changes', 'problem'),
  [
    ({'prompt': 'a dog'}, {}, f"the prompt of 00 is 'a dog', but '{PROMPT}' in the"),
    ({'uid': []}, {}, r'uid \[\] is not in the project'),
    ({'uid': 5}, {}, 'uid 5 is not in the project'),
    ({}, {'lead_time': 'nan'}, "lead_time = 'nan' must be a number"),
    ({}, {'lead_time': -1}, 'lead_time = -1 must be at least 0'),
    ({}, {'was_cancelled': 'no'}, "was_cancelled = 'no' must be True or False"),
    ({}, {'completed_by': {'id': 1, 'first_name': 'a' * 81}}, 'a name has 1 to 80'),
    ({}, {'completed_by': {'id': 1, 'email': 5}}, 'is not in the format'),
  ],
)
def test_hostile_tasks_are_named(rich, tmp_path, data, changes, problem):
  made = rich('project')
  with pytest.raises(InputError, match=f'tasks.json, task 1 .*{problem}'):
    label_studio.load(made, written(tmp_path, SCORES, data, **changes))
  assert values(made) == []


@pytest.mark.parametrize(
  ('completed_by', 'name'),
  [
    (3, 'label studio 3'),
    ({'id': 3}, 'label studio 3'),
    ({'id': 3, 'first_name': '', 'email': 'a@b.org'}, 'a@b.org'),
    ({'id': 3, 'first_name': 'Ann', 'last_name': 'Lee', 'email': 'a@b.org'}, 'Ann Lee'),
  ],
)
def test_names_of_annotators(rich, tmp_path, completed_by, name):
  made = rich('project')
  label_studio.load(made, written(tmp_path, SCORES, completed_by=completed_by))
  assert [one.name for one in answers(made)] == [name]


def test_two_users_of_one_name_are_not_mixed_up(rich, tmp_path):
  path = written(tmp_path, SCORES, completed_by={'id': 3, 'first_name': 'Ann'})
  tasks = json.loads(path.read_text())
  other = {'id': 8, 'completed_by': {'id': 4, 'first_name': 'Ann'}}
  tasks[0]['annotations'].append(tasks[0]['annotations'][0] | other)
  path.write_text(json.dumps(tasks))
  with pytest.raises(InputError, match='the users 3 and 4 are both called Ann'):
    label_studio.load(rich('project'), path)


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    ({'unique_id': 'x'}, {'unique_id': 'y'}),
    ({'created_at': '2026-01-01'}, {'created_at': '2026-01-02'}),
    ({}, {}),
  ],
)
def test_another_instance_may_use_the_same_numbers(rich, tmp_path, one, other):
  made = rich('project')
  path = written(tmp_path, SCORES, **one)
  assert label_studio.load(made, path) == 1
  assert label_studio.load(made, path) == 0
  assert label_studio.load(made, written(tmp_path, SCORES, {'uid': '01'}, **one)) == 1
  result = [rating(name, 4) for name in schema.SCORES]
  path = written(tmp_path, result, completed_by=4, **other)
  assert label_studio.load(made, path) == 1


@pytest.mark.parametrize('known', [{'unique_id': 'x'}, {}])
def test_an_annotation_that_changed_is_refused(rich, tmp_path, known):
  made = rich('project')
  label_studio.load(made, written(tmp_path, SCORES, **known))
  path = written(tmp_path, [rating(name, 4) for name in schema.SCORES], **known)
  with pytest.raises(InputError, match=r'task 1 cannot be loaded: label studio 3 has'):
    label_studio.load(made, path)


def test_other_files_are_refused(rich, tmp_path):
  made = rich('project')
  path = tmp_path / 'tasks.json'
  for text in ('{}', 'nothing'):
    path.write_text(text)
    with pytest.raises(InputError, match='is not an export of Label Studio'):
      label_studio.load(made, path)
  with pytest.raises(InputError, match=f'is a folder; give the file, such as {path}'):
    label_studio.load(made, tmp_path)
