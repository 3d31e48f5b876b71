"""Answers that come otherwise, other clocks, repeats and gold questions."""

import time

import projects
import pytest
import sqlalchemy as sa

from rahf.annotation import (
  answering,
  assignment,
  project,
  standing,
)
from rahf.annotation.answering import ConflictError
from rahf.annotation.tables import ANSWERS, ITEMS, LEASES
from rahf.errors import InputError


def test_an_answer_that_came_otherwise_meanwhile(made):
  """As by an import: the open task is answered already, and another one follows."""
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  with made.store.write() as connection:
    values = {'item': task['item'], 'annotator': person.id, 'purpose': 'task'}
    values |= {'turn': 0, 'status': 'done', 'value': projects.rich_value(), 'flag': ''}
    values |= {'assist': '', 'seconds': 1, 'created': 1, 'key': 'k' * 32}
    connection.execute(sa.insert(ANSWERS).values(values))
  with pytest.raises(ConflictError, match='answered already'):
    answering.submit(made, person, task['lease'], projects.answer())
  following = answering.next_task(made, person)
  assert following['item'] != task['item']
  answering.submit(made, person, following['lease'], projects.answer())
  assert [row.item for row in projects.rows(made, ANSWERS)] == [
    task['item'],
    following['item'],
  ]


def test_a_reader_sees_one_state(made):
  with made.store.read() as connection:
    count = sa.select(sa.func.count()).select_from(ANSWERS)
    assert connection.scalar(count) == 0
    person = projects.enter(made, 'a')
    task = answering.next_task(made, person)
    answering.submit(made, person, task['lease'], projects.answer())
    assert connection.scalar(count) == 0
  assert len(projects.rows(made, ANSWERS)) == 1


def test_seconds_are_not_negative(in_file):
  """If the clock of another server, which gave the task, was ahead."""
  person = projects.enter(in_file, 'a')
  task = answering.next_task(in_file, person)
  with in_file.store.write() as connection:
    connection.execute(sa.update(LEASES).values(started=time.time() + 600))
  answering.submit(in_file, person, task['lease'], projects.answer())
  assert projects.rows(in_file, ANSWERS)[0].seconds == 0


def test_words_of_gold_questions(in_file, tmp_path):
  """They may be words or positions; answers have positions."""
  gold = tmp_path / 'gold.jsonl'
  gold.write_text('{"uid": "00", "misaligned_words": ["red", 2]}\n')
  project.set_gold(in_file, gold)
  assert projects.rows(in_file, ITEMS)[0].gold['misaligned_words'] == [1, 2]
  for word in ('"blue"', '9'):
    gold.write_text(f'{{"uid": "00", "misaligned_words": [{word}]}}\n')
    with pytest.raises(InputError, match=r'gold\.jsonl: 00: misaligned word'):
      project.set_gold(in_file, gold)


def test_repeats_and_gold_questions(tmp_path):
  made = projects.make(tmp_path, 40)
  wanted = {'repeats': 0.3, 'gold': 0.3, 'limit': 4}
  made, _ = project.update(made, wanted, None)
  gold = tmp_path / 'gold.jsonl'
  lines = [
    f'{{"uid": "{uid:02}", "scores": {{"overall": {1 + uid % 2 * 4}}}, '
    '"misaligned_words": null}\n'
    for uid in range(8)
  ]
  gold.write_text(''.join(lines).replace(', "misaligned_words": null', ''))
  assert project.set_gold(made, gold) == 8
  person = projects.enter(made, 'a')
  order = []
  while task := answering.next_task(made, person):
    value = projects.rich_value(0, implausibility_points=[], misaligned_words=[])
    value['nothing'] = sorted(answering.rich.LISTS)
    answering.submit(made, person, task['lease'], projects.answer(value))
    order.append(task['item'])
  found = projects.rows(made, ANSWERS)
  kinds = [row.purpose for row in found]
  # Gold questions are not asked as tasks.
  assert (kinds.count('task'), kinds.count('repeat'), kinds.count('gold')) == (32, 4, 4)
  for row in found:
    if row.purpose == 'repeat':
      assert order.index(row.item) < found.index(row) - assignment.REPEAT_GAP
  assert sum(row.completed for row in projects.rows(made, ITEMS)) == 32
  with made.store.read() as connection:
    # The answers have overall 1, as the even ones are.
    results = standing.gold_results(connection, person.id)
  assert results == [True, False, True, False]


def test_too_many_wrong_gold_answers_end_the_work(tmp_path):
  made = projects.make(tmp_path, 20)
  made, _ = project.update(made, {'gold': 0.5, 'passing': 0.5}, None)
  gold = tmp_path / 'gold.jsonl'
  gold.write_text(
    ''.join(f'{{"uid": "{n:02}", "scores": {{"overall": 5}}}}\n' for n in range(10))
  )
  project.set_gold(made, gold)
  person = projects.enter(made, 'a')
  count = 0
  while task := answering.next_task(made, person):
    answering.submit(made, person, task['lease'], projects.answer())
    count += 1
  purposes = [row.purpose for row in projects.rows(made, ANSWERS)]
  assert purposes.count('gold') == standing.LEAST_GOLD
  assert count < 20
