"""Imports of files that were not written by an export, or do not fit the project."""

import json
import math
import pathlib
from typing import Any

import projects
import pytest
import sqlalchemy as sa

from rahf import annotate
from rahf.annotation import answering, exports, transfer
from rahf.annotation.answering import ConflictError
from rahf.annotation.tables import ANNOTATORS, ANSWERS, ITEMS, LEASES
from rahf.errors import InputError

PERSON = {'name': 'Ann', 'role': 'annotator', 'rater': None, 'active': True}
VERSION = {'status': 'done', 'value': projects.rich_value(), 'seconds': 1, 'created': 2}
ANSWER = {
  **{'key': 'a' * 16, 'uid': '00', 'annotator': 'Ann', 'purpose': 'task', 'turn': 0},
  **{**VERSION, 'flag': '', 'assist': '', 'revisions': [VERSION]},
}
CHOICE = {'choice': 'left', 'left': 1, 'right': 0}


@pytest.fixture(params=['sqlite', 'postgresql'])
def made(request, tmp_path):
  """A rich project of two images in a store of each kind."""
  in_file = request.param == 'sqlite'
  url = '' if in_file else request.getfixturevalue('postgres_url')
  found = projects.make(tmp_path, 2, url=url)
  yield found
  found.store.close()


def written(made, folder: pathlib.Path, *answers: dict[str, Any], **changes: Any):
  """Writes an export of a project with further answers; returns its path.

  Args:
    changes: by kind, fields of the last line of that kind.
  """
  lines = [line for line in transfer.lines(made) if line['kind'] != 'answer']
  lines += [
    {'kind': 'annotator', **PERSON},
    *({'kind': 'answer', **a} for a in answers),
  ]
  for kind, fields in changes.items():
    [line for line in lines if line['kind'] == kind][-1].update(fields)
  path = folder / 'all.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return path


def count(made, table) -> int:
  with made.store.read() as connection:
    return connection.scalar(sa.select(sa.func.count()).select_from(table))


def test_a_plain_line_is_accepted(made, tmp_path):
  assert transfer.load(made, written(made, tmp_path, ANSWER)) == 1


@pytest.mark.parametrize(
  ('kind', 'field', 'value', 'problem'),
  [
    ('item', 'uid', [], 'must be text'),
    ('item', 'uid', 5, 'must be text'),
    ('item', 'images', None, 'must be a sequence'),
    ('annotator', 'name', {}, 'must be text'),
    ('annotator', 'role', [], 'is not one of'),
    ('annotator', 'rater', [1], 'must be a whole number'),
    ('annotator', 'rater', 'abc', 'must be a whole number'),
    ('annotator', 'rater', 10**30, 'must be at most'),
    ('annotator', 'active', 'no', 'must be True or False'),
    ('answer', 'key', 'a' * 65, 'must have 1 to 64 characters'),
    ('answer', 'uid', [1], 'must be text'),
    ('answer', 'uid', 5, 'must be text'),
    ('answer', 'annotator', {}, 'must be text'),
    ('answer', 'purpose', {}, 'is not one of'),
    ('answer', 'status', [], 'is not one of'),
    ('answer', 'turn', 10**30, 'must be at most'),
    ('answer', 'turn', -1, 'must be at least 0'),
    ('answer', 'turn', 1, 'is not there: 00 has 1 round$'),
    ('answer', 'turn', True, 'must be a whole number'),
    ('answer', 'value', 'x', 'must be an object'),
    ('answer', 'value', {'scores': math.nan}, 'scores: give 1 to 5'),
    ('answer', 'flag', 'a\0b', 'cannot be stored'),
    ('answer', 'flag', '\ud800', 'cannot be stored'),
    ('answer', 'flag', 'a' * 501, 'must have 0 to 500 characters'),
    ('answer', 'assist', 'a' * 21, 'is not one of'),
    ('answer', 'seconds', math.nan, 'must be a number'),
    ('answer', 'seconds', -1e300, 'must be at least 0'),
    ('answer', 'seconds', 10**400, 'is too large'),
    ('answer', 'created', 1e300, 'must be at most'),
    ('answer', 'created', -1, 'must be at least 0'),
    ('answer', 'revisions', None, 'must be a sequence'),
    ('answer', 'revisions', [None], 'must be an object'),
    ('answer', 'revisions', [VERSION | {'created': None}], 'created: must be a number'),
    ('answer', 'revisions', [VERSION | {'seconds': 1e300}], 'seconds: must be at most'),
    ('answer', 'revisions', [VERSION | {'value': {}}], 'the score .* is missing'),
    ('project', 'format', [], 'must be text'),
  ],
)
def test_impossible_fields_are_named(made, tmp_path, kind, field, value, problem):
  people = count(made, ANNOTATORS)
  path = written(made, tmp_path, ANSWER, **{kind: {field: value}})
  with pytest.raises(
    InputError, match=rf'all.jsonl:\d+ cannot .*: .*{problem}'
  ) as found:
    transfer.load(made, path)
  assert problem.startswith(('the score', 'scores')) or field in str(found.value)
  assert count(made, ANSWERS) == 0
  assert count(made, ANNOTATORS) == people


@pytest.mark.parametrize('field', ['key', 'value', 'revisions'])
def test_a_missing_field_is_named(made, tmp_path, field):
  answer = {name: value for name, value in ANSWER.items() if name != field}
  with pytest.raises(InputError, match=f'it has no {field}'):
    transfer.load(made, written(made, tmp_path, answer))


@pytest.mark.parametrize(
  ('task', 'change', 'problem'),
  [
    ('compare', {'turn': 1}, 'has 1 round$'),
    ('compare', {'value': {'choice': [1]}}, r'choice = \[1\] must be text'),
    (
      'compare',
      {'purpose': 'repeat'},
      "purpose = 'repeat' is for the task 'rich' only",
    ),
    ('prefer', {'turn': 2}, 'turn = 2 is not there: .* has 2 rounds'),
    ('prefer', {'value': CHOICE | {'right': 1}}, 'are not two images'),
    ('prefer', {'value': CHOICE | {'right': 3}}, 'are not two images'),
    ('prefer', {'value': CHOICE | {'left': None}}, 'are not two images'),
    ('prefer', {'value': {}}, 'choice = None must be text'),
  ],
)
def test_other_tasks_have_other_limits(tmp_path, task, change, problem):
  made = projects.make(tmp_path, 3, 'prefer', prompts=1)
  if task == 'compare':
    with made.store.write() as connection:
      connection.execute(sa.update(transfer.PROJECT).values(task=task))
    settings = made.settings
    made = made._replace(settings=type(settings)(task, settings.images))
  with made.store.read() as connection:
    uid = connection.scalar(sa.select(ITEMS.c.uid))
  answer = ANSWER | {'uid': uid, 'value': CHOICE, 'revisions': []}
  with pytest.raises(InputError, match=problem):
    transfer.load(made, written(made, tmp_path, answer | change))
  assert transfer.load(made, written(made, tmp_path, answer)) == 1


def test_other_files_are_refused(tmp_path, capsys):
  made = projects.make(tmp_path, 2)
  person = projects.enter(made, 'Ann')
  task = answering.next_task(made, person)
  answering.submit(made, person, task['lease'], projects.answer())
  raw, everything = tmp_path / 'raw.jsonl', tmp_path / 'all.jsonl'
  exports.write_raw(made, raw)
  transfer.export(made, everything)
  empty, cut = tmp_path / 'empty.jsonl', tmp_path / 'cut.jsonl'
  empty.write_text('\n')
  cut.write_text(''.join(everything.read_text().splitlines(keepends=True)[1:]))
  other = projects.make(tmp_path / 'other', 2, 'prefer', prompts=1)
  for path, problem in (
    (raw, 'raw.jsonl:1 cannot be loaded: it is not an export of --everything'),
    (cut, 'cut.jsonl:1 cannot be loaded: it is not an export of --everything'),
    (empty, 'empty.jsonl is empty; it is not an export of --everything'),
    (tmp_path, f'{tmp_path} is not a file'),
    (everything, "export of the task 'rich', but the task of the project is 'prefer'"),
  ):
    assert annotate.main(['import', str(tmp_path / 'other/project'), str(path)]) == 2
    printed = capsys.readouterr().err
    assert problem in printed
    assert printed.count('\n') == 1
  other.store.close()


def test_whoever_has_an_imported_task_open_gets_another(made, tmp_path):
  person = projects.enter(made, 'Ann')
  task = answering.next_task(made, person)
  assert transfer.load(made, written(made, tmp_path, ANSWER)) == 1
  assert count(made, LEASES) == 0
  with pytest.raises(ConflictError):
    answering.submit(made, person, task['lease'], projects.answer())
  following = answering.next_task(made, person)
  assert following['item'] != task['item']
  answering.submit(made, person, following['lease'], projects.answer())
  assert count(made, ANSWERS) == 2


def test_leases_of_other_tasks_stay(made, tmp_path):
  person = projects.enter(made, 'Ann')
  task = answering.next_task(made, person)
  transfer.load(made, written(made, tmp_path, ANSWER | {'uid': '01'}))
  answering.submit(made, person, task['lease'], projects.answer())
  assert count(made, ANSWERS) == 2


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    ({'uid': '01'}, 'that of another answer in the project'),
    ({'annotator': 'Ben'}, 'that of another answer in the project'),
    ({'value': projects.rich_value(1)}, 'Ann has answered 00 otherwise'),
    ({'status': 'skipped'}, 'Ann has answered 00 otherwise'),
    ({'key': 'b' * 16}, 'Ann has another answer to 00'),
  ],
)
def test_a_contradiction_is_refused(made, tmp_path, change, problem):
  projects.enter(made, 'Ben')
  transfer.load(made, written(made, tmp_path, ANSWER))
  with pytest.raises(InputError, match=problem):
    transfer.load(made, written(made, tmp_path, ANSWER | change))
  assert count(made, ANSWERS) == 1


def test_an_earlier_version_is_there_already(made, tmp_path):
  person = projects.enter(made, 'Ann')
  task = answering.next_task(made, person)
  number = answering.submit(made, person, task['lease'], projects.answer())
  before = tmp_path / 'before.jsonl'
  transfer.export(made, before)
  changed = projects.answer(projects.rich_value(3))
  answering.revise(made, person, number, changed)
  assert transfer.load(made, before) == 0
