"""Answers of rich projects in Label Studio's format, and back.

Data format, a list of tasks in JSON:
  data         {image: URL, prompt, uid}
  annotations  [{result, was_cancelled, lead_time, completed_by}, …]
Items of `result`, by the names in CONFIG:
  points           keypointlabels  x, y in percent; a label of schema.MAPS
  words            labels          start, end in UTF-16 units; may hold several words
  <score>          rating          1 to 5
  nothing          choices         which lists are empty on purpose
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from rahf.annotation import rich, transfer
from rahf.annotation.exports import Exported, answers
from rahf.annotation.project import Project
from rahf.annotation.settings import RICH
from rahf.annotation.tables import DONE, SKIPPED, TASK
from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.data.labels.consolidate import DISC_RADIUS
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json

TASKS_FILE, CONFIG_FILE = 'tasks.json', 'config.xml'
MISALIGNED = 'misaligned'
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
    InputError: the project is not rich.
  """
  _check(project)
  folder.mkdir(parents=True)
  tasks: dict[int, dict[str, Any]] = {}
  count = 0
  for one in answers(project):
    if one.item['id'] not in tasks:
      tasks[one.item['id']] = {'id': one.item['id'], **_task(one.item)}
    result = list(_results(one, _size(project, one.item)))
    tasks[one.item['id']]['annotations'].append(
      {
        'id': one.id,
        'completed_by': {'id': one.annotator, 'first_name': one.name},
        'was_cancelled': False,
        'lead_time': one.seconds,
        'result': result,
      }
    )
    count += 1
  text = json.dumps([*tasks.values()], indent=1, ensure_ascii=False)
  atomic_write.write(folder / TASKS_FILE, text)
  atomic_write.write(folder / CONFIG_FILE, CONFIG)
  return count


def load(project: Project, path: pathlib.Path) -> int:
  """Adds the annotations of an export of Label Studio; returns their number.

  Annotators are named after their number there. A list that an annotation leaves empty
  counts as nothing to mark, as the annotation was submitted like that. Loading a file
  twice changes nothing.

  Raises:
    InputError: the file is not such an export, or does not fit the project.
  """
  _check(project)
  try:
    tasks = strict_json.read(path)
    if not isinstance(tasks, list):
      raise ValueError('it is not a list of tasks')
  except (OSError, ValueError) as error:
    raise InputError(f'{path} is not an export of Label Studio: {error}') from None
  return transfer.load_lines(project, _lines(path, tasks))


def _check(project: Project) -> None:
  if project.settings.task != RICH:
    raise InputError(f"Label Studio's format is for --task={RICH}")


def _task(item: Mapping[str, Any]) -> dict[str, Any]:
  image = item['images'][0]
  data = {'image': f'{_URL}{image["file"]}', 'prompt': item['prompt']}
  return {'data': data | {'uid': item['uid']}, 'annotations': []}


def _size(project: Project, item: Mapping[str, Any]) -> tuple[int, int]:
  """Returns width and height of an image as it is shown."""
  path = project.images / item['images'][0]['file']
  try:
    with Image.open(path) as image:
      return codec.upright_size(image)
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error}); restore the image') from None


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


def _lines(path: pathlib.Path, tasks: list) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yields the lines of `transfer` that say the same."""
  for number, task in enumerate(tasks, 1):
    where = f'{path}, task {number}'
    try:
      data = task['data']
      for annotation in task['annotations']:
        by = annotation['completed_by']
        by = by['id'] if isinstance(by, dict) else by
        name = f'label studio {by}'
        person = {'name': name, 'role': 'annotator', 'rater': None, 'active': True}
        yield where, {'kind': 'annotator', **person}
        cancelled = bool(annotation.get('was_cancelled'))
        key = f'label studio {task["id"]} {annotation["id"]}'
        yield (
          where,
          {
            'kind': 'answer',
            'key': hashlib.sha256(key.encode()).hexdigest()[:32],
            'uid': data['uid'],
            'annotator': name,
            'purpose': TASK,
            'turn': 0,
            'status': SKIPPED if cancelled else DONE,
            'value': {} if cancelled else _value(annotation['result'], data['prompt']),
            'flag': '',
            'assist': '',
            'seconds': float(annotation.get('lead_time') or 0),
            'created': 0.0,
            'revisions': [],
          },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise InputError(
        f'{where} is not in the format of rahf/annotation/label_studio.py: {error!r}'
      ) from None


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
