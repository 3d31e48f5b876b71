"""Answers of rich projects in Label Studio's format, and back.

Data format, a list of tasks in JSON:
  data         {image: URL, prompt, uid}
  meta         {rahf_answers: {number: {key, annotator}}}, of the answers in our exports
  annotations  [{result, was_cancelled, lead_time, completed_by, import_id}, …]
Label Studio keeps `meta`, and the number of an annotation that it imports as the
`import_id` of its own one, so that our answers are known when they come back. It drops
other fields, and refuses annotators whom it does not know.
Items of `result`, by the names in CONFIG:
  points           keypointlabels  x, y in percent; a label of schema.MAPS
  words            labels          start, end in UTF-16 units; may hold several words
  <score>          rating          1 to 5
  nothing          choices         which lists are empty on purpose
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from rahf.annotation import exports, image_files, import_rules, rich, transfer
from rahf.annotation.exports import Exported
from rahf.annotation.people import ANNOTATOR, clean_name
from rahf.annotation.project import Project
from rahf.annotation.settings import RICH
from rahf.annotation.tables import DONE, ITEMS, SKIPPED, TASK
from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.data.labels.consolidate import DISC_RADIUS
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json, validators

TASKS_FILE, CONFIG_FILE = 'tasks.json', 'config.xml'
MISALIGNED = 'misaligned'
# In `meta`.
_ANSWERS = 'rahf_answers'
# Files that Label Studio serves itself; see its "local storage".
_URL = '/data/local-files/?d='
CONFIG = f"""\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <KeyPointLabels name="points" toName="image">
    {''.join(f'<Label value="{name}"/>' for name in schema.MAPS)}
  </KeyPointLabels>
  <Labels name="words" toName="prompt"><Label value="{MISALIGNED}"/></Labels>
  <Text name="prompt" value="$prompt" granularity="word"/>
  <Header value="Nothing to mark: tick what this image has none of"/>
  <Choices name="nothing" toName="image" choice="multiple">
    {''.join(f'<Choice value="{name}"/>' for name in rich.LISTS)}
  </Choices>
  {
  ''.join(
    f'<Header value="{name}"/>'
    f'<Rating name="{name}" toName="image" maxRating="5" required="true"/>'
    for name in schema.SCORES
  )
}
</View>
"""


def export(project: Project, folder: pathlib.Path) -> int:
  """Writes TASKS_FILE and CONFIG_FILE into a new folder; returns the answers' number.

  Raises:
    InputError: the project is not rich, or an image has vanished or changed; then no
      folder is written.
  """
  _check(project)
  tasks, count = [], 0
  with exports.new_folder(folder) as new:
    for _, group in itertools.groupby(
      exports.answers(project), lambda one: one.item['id']
    ):
      given = list(group)
      tasks.append(_task(project, given))
      count += len(given)
    text = json.dumps(tasks, indent=1, ensure_ascii=False)
    atomic_write.write(new / TASKS_FILE, text)
    atomic_write.write(new / CONFIG_FILE, CONFIG)
  return count


def load(project: Project, path: pathlib.Path) -> int:
  """Adds the annotations of an export of Label Studio; returns their number.

  Annotators have the names that they have there, or are named after their number. A
  list that an annotation leaves empty counts as nothing to mark, as the annotation was
  submitted like that. Loading a file twice changes nothing, nor do our own answers that
  come back.

  Raises:
    InputError: the file is not such an export, or does not fit the project.
  """
  _check(project)
  if path.is_dir():
    raise InputError(f'{path} is a folder; give the file, such as {path / TASKS_FILE}')
  try:
    tasks = strict_json.read(path)
    if not isinstance(tasks, list):
      raise ValueError('it is not a list of tasks')
  except (OSError, ValueError) as error:
    raise InputError(f'{path} is not an export of Label Studio: {error}') from None
  with project.store.read() as connection:
    prompts = dict(connection.execute(sa.select(ITEMS.c.uid, ITEMS.c.prompt)).all())
  return transfer.load_lines(project, _lines(path, tasks, prompts))


def _check(project: Project) -> None:
  if project.settings.task != RICH:
    raise InputError(f"Label Studio's format is for --task={RICH}")


def _task(project: Project, given: list[Exported]) -> dict[str, Any]:
  """Returns the task of an image with all answers to it."""
  item = given[0].item
  image = item['images'][0]
  size = codec.upright_size(
    codec.open_image(image_files.read_unchanged(project, image))
  )
  data = {'image': f'{_URL}{image["file"]}', 'prompt': item['prompt']}
  answers = {one.id: {'key': one.key, 'annotator': one.name} for one in given}
  return {
    'id': item['id'],
    'data': data | {'uid': item['uid']},
    'meta': {_ANSWERS: answers},
    'annotations': [_annotation(one, size) for one in given],
  }


def _annotation(one: Exported, size: tuple[int, int]) -> dict[str, Any]:
  # Without `completed_by`, it is given to whoever imports it into Label Studio.
  return {
    'id': one.id,
    'import_id': one.id,
    'was_cancelled': False,
    'lead_time': one.seconds,
    'result': list(_results(one, size)),
  }


def _results(one: Exported, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
  width, height = size
  shape = {'original_width': width, 'original_height': height, 'image_rotation': 0}
  for name in schema.MAPS:
    for x, y in one.value[f'{name}_points']:
      place = {'x': 100 * x, 'y': 100 * y, 'width': 100 * DISC_RADIUS * height / width}
      value = place | {'keypointlabels': [name]}
      yield _result('points', 'image', 'keypointlabels', value) | shape
  prompt = one.item['prompt']
  spans = label_words.label_spans(prompt)
  for number in one.value[rich.WORDS]:
    start, end = spans[number]
    value = {'start': _units(prompt[:start]), 'end': _units(prompt[:end])}
    value |= {'text': prompt[start:end], 'labels': [MISALIGNED]}
    yield _result('words', 'prompt', 'labels', value)
  for name, score in one.value['scores'].items():
    yield _result(name, 'image', 'rating', {'rating': score})
  if one.value['nothing']:
    yield _result('nothing', 'image', 'choices', {'choices': one.value['nothing']})


def _result(name: str, of: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
  return {'from_name': name, 'to_name': of, 'type': kind, 'value': value}


def _lines(
  path: pathlib.Path, tasks: list, prompts: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the lines of `transfer` that say the same."""
  users: dict[str, Any] = {}
  for number, task in enumerate(tasks, 1):
    where = f'{path}, task {number}'
    try:
      _check_prompt(task['data'], prompts)
      ours = (task.get('meta') or {}).get(_ANSWERS, {})
      for annotation in task['annotations']:
        origin = ours.get(str(annotation.get('import_id')))
        name = origin['annotator'] if origin else _name(annotation, users)
        person = {'name': clean_name(name), 'role': ANNOTATOR}
        yield where, {'kind': 'annotator', **person, 'rater': None, 'active': True}
        answer = {'annotator': person['name'], **_answer(task['data'], annotation)}
        key = origin['key'] if origin else _key(task, annotation)
        yield where, {'kind': 'answer', 'key': key, **answer}
    except InputError as error:
      raise InputError(f'{where} cannot be loaded: {error}') from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise InputError(
        f'{where} is not in the format of rahf/annotation/label_studio.py: {error!r}'
      ) from None


def _check_prompt(data: Mapping[str, Any], prompts: Mapping[str, str]) -> None:
  uid = data['uid']
  if not isinstance(uid, str) or uid not in prompts:
    raise InputError(f'uid {uid!r:.80} is not in the project')
  if data['prompt'] != prompts[uid]:
    raise InputError(
      f'the prompt of {uid} is {data["prompt"]!r:.300}, but {prompts[uid]!r:.300} in '
      'the project'
    )


def _answer(data: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what an annotation says, as `transfer` has it."""
  for name, rule in (
    ('was_cancelled', validators.truth),
    ('lead_time', import_rules.SECONDS),
  ):
    import_rules.check_field(name, annotation.get(name), validators.optional(rule))
  cancelled = annotation.get('was_cancelled')
  return {
    'uid': data['uid'],
    'purpose': TASK,
    'turn': 0,
    'status': SKIPPED if cancelled else DONE,
    'value': {} if cancelled else _value(annotation['result'], data['prompt']),
    'flag': '',
    'assist': '',
    'seconds': float(annotation.get('lead_time') or 0),
    'created': 0.0,
    'revisions': [],
  }


def _name(annotation: Mapping[str, Any], users: dict[str, Any]) -> str:
  """Returns the name of an annotation's user.

  Args:
    users: the numbers of users by their names; gets that of this one.

  Raises:
    InputError: another user has the same name.
  """
  by = annotation['completed_by']
  # Some exports give the number alone.
  by = by if isinstance(by, dict) else {'id': by}
  number, names = by['id'], [by.get('first_name') or '', by.get('last_name') or '']
  name = ' '.join(names).strip() or by.get('email') or f'label studio {number}'
  if users.setdefault(name, number) != number:
    raise InputError(
      f'the users {users[name]} and {number} are both called {name}; rename one of them'
    )
  return name


def _key(task: Mapping[str, Any], annotation: Mapping[str, Any]) -> str:
  """Returns the key of an annotation that was made in Label Studio.

  Other instances use the same numbers; older versions have no `unique_id`.
  """
  number = annotation.get('unique_id') or [
    *(task['id'], annotation['id'], annotation.get('created_at')),
    annotation['result'],
  ]
  text = json.dumps([task['data']['uid'], number], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def _value(results: list[Mapping[str, Any]], prompt: str) -> dict[str, Any]:
  """Returns an answer of `rich`."""
  found: dict[str, Any] = {name: [] for name in rich.LISTS} | {'scores': {}}
  spans = [
    (_units(prompt[:start]), _units(prompt[:end]))
    for start, end in label_words.label_spans(prompt)
  ]
  for result in results:
    kind, value = result['type'], result['value']
    if kind == 'keypointlabels':
      point = [min(max(value[axis] / 100, 0), 1) for axis in ('x', 'y')]
      for name in value['keypointlabels']:
        found[f'{name}_points'].append(point)
    elif kind == 'labels':
      if others := [name for name in value['labels'] if name != MISALIGNED]:
        raise InputError(
          f'words have the label {others[0]!r:.40}, not {MISALIGNED}; rename it, or '
          'leave those words out'
        )
      found[rich.WORDS] += [
        number
        for number, (start, end) in enumerate(spans)
        if start < value['end'] and value['start'] < end
      ]
    elif kind == 'rating':
      found['scores'][result['from_name']] = value['rating']
  found['nothing'] = [name for name in rich.LISTS if not found[name]]
  return found


def _units(text: str) -> int:
  """Returns the length in UTF-16 units, which JavaScript counts."""
  return len(text.encode('utf-16-le')) // 2
