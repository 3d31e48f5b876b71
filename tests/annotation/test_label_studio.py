"""Label Studio's format, both ways."""

import json
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
  names = {one.get('name') for one in config.iter() if one.get('name')}
  used = {one['from_name'] for one in first['result']}
  assert used <= names
  other = rich('other')
  command = ['import', str(tmp_path / 'other'), str(out / 'tasks.json')]
  assert annotate.main([*command, '--label_studio']) == 0
  assert annotate.main([*command, '--label_studio']) == 0
  assert values(other) == values(made)


def rating(name: str, score: int = 3) -> dict:
  return {'from_name': name, 'type': 'rating', 'value': {'rating': score}}


def written(tmp_path, result: list, **changes) -> str:
  annotation = {'id': 7, 'completed_by': 3, 'result': result, 'lead_time': 12.5}
  task = {'id': 1, 'data': {'uid': '00', 'prompt': PROMPT}}
  task['annotations'] = [annotation | changes]
  path = tmp_path / 'tasks.json'
  path.write_text(json.dumps([task]))
  return path


def test_spans_of_several_words(rich, tmp_path):
  """A span may start within a word and hold several; other labels are ignored."""
  made = rich('project')
  start = PROMPT.index('ed cat') + 1  # UTF-16 units, after the emoji.
  span = {'start': start, 'end': start + 6, 'text': 'ed cat', 'labels': ['misaligned']}
  result = [
    {'from_name': 'words', 'type': 'labels', 'value': span},
    *map(rating, schema.SCORES),
  ]
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
  ],
)
def test_what_does_not_fit_is_named(rich, tmp_path, result, problem):
  made = rich('project')
  with pytest.raises(InputError, match=rf'tasks.json, task 1 .*{problem}'):
    label_studio.load(made, written(tmp_path, result))
  assert values(made) == []


def test_other_files_are_refused(rich, tmp_path):
  made = rich('project')
  path = tmp_path / 'tasks.json'
  for text in ('{}', 'nothing'):
    path.write_text(text)
    with pytest.raises(InputError, match='is not an export of Label Studio'):
      label_studio.load(made, path)
