"""The dashboard: agreement, and annotators who deviate."""

import math
import random

import browsing
import numpy as np
import projects
import pytest

from rahf.annotation import answering, people, project, summary
from rahf.annotation.summary import Row, summarise
from rahf.data import schema


def rate(made, name: str, score_of, **changes) -> None:
  person = projects.enter(made, name)
  while task := answering.next_task(made, person):
    scores = {one: score_of(task['item'], one) for one in schema.SCORES}
    value = projects.rich_value(task['item'], scores=scores, **changes)
    answering.submit(made, person, task['lease'], projects.answer(value))


def test_agreement_and_differences(tmp_path):
  made = projects.make(tmp_path, 10)
  rate(made, 'ann', lambda item, name: 1 + item % 5)
  step = {'plausibility': 0, 'alignment': 1, 'aesthetics': 0, 'overall': 0}
  rate(made, 'ben', lambda item, name: min(1 + item % 5 + step[name], 5))
  found = summarise(made)
  assert (found.completed, found.wanted, found.items, found.complete) == (
    20,
    20,
    10,
    10,
  )
  assert found.alpha['plausibility'] == pytest.approx(1)
  assert found.alpha['words'] == pytest.approx(1)
  # Items 4 and 9 have 5 and 5.
  assert found.differences['alignment'] == (2, 8, 0, 0, 0)
  assert found.differences['overall'] == (10, 0, 0, 0, 0)
  a = np.array([1 + item % 5 for item in range(1, 11)], float)
  both = np.stack([a, np.minimum(a + 1, 5)])
  # By the definition: 1 - observed / expected squared differences.
  flat = both.ravel()
  expected = ((flat[:, None] - flat) ** 2).sum() / (flat.size * (flat.size - 1))
  alpha = 1 - np.mean((both[0] - both[1]) ** 2) / expected
  assert found.alpha['alignment'] == pytest.approx(alpha)
  assert [row.deviation for row in found.annotators] == [pytest.approx(0.2)] * 2


def test_an_annotator_who_guesses_is_named(tmp_path):
  made = projects.make(tmp_path, 20)
  made, _ = project.update(made, {'answers': 6}, None)
  chance = random.Random(0)
  for name in ('ann', 'ben', 'cem', 'dan', 'eva'):
    rate(made, name, lambda item, _: min(max(3 + chance.choice((-1, 0, 0, 1)), 1), 5))
  rate(made, 'odd', lambda item, _: chance.choice((1, 5)))
  found = {row.name: row for row in summarise(made).annotators}
  # The seconds are those of this machine, and may be odd too.
  remark = 'scores deviate from the others'
  assert [name for name, row in found.items() if remark in row.remarks] == ['odd']


def make_row(number: int, **changes) -> Row:
  row = Row(number, f'p{number}', True, 20, 0, 30.0, (0, 0), (0, 0), 0.5, math.nan)
  return row._replace(**changes)


def test_remarks():
  usual = [make_row(n, seconds=30.0 + n) for n in range(4)]
  odd = [
    make_row(4, seconds=3.0),
    make_row(5, seconds=300.0),
    make_row(6, gold=(2, 5), repeats=(1, 6)),
    make_row(7, left=0.9),
    make_row(8, left=0.9, done=9),
    # Too few answers to say anything.
    make_row(9, seconds=3.0, done=4, gold=(0, 4)),
  ]
  remarks = [row.remarks for row in summary.with_remarks([*usual, *odd])]
  assert remarks[:4] == [()] * 4
  assert remarks[4:] == [
    ('faster than the others',),
    ('slower than the others',),
    ('gold questions missed', 'repeats answered otherwise'),
    ('prefers one side',),
    (),
    (),
  ]
  # Three are too few to say who is usual.
  assert not any(row.remarks for row in summary.with_remarks([*usual[:2], odd[0]]))


def test_only_admins_see_the_dashboard(tmp_path):
  made = projects.make(tmp_path, 4)
  rate(made, '<b>Ann</b>', lambda item, _: 3)
  token = people.invite(made.store, 'Boss', people.ADMIN)
  with browsing.running(made) as port:
    page = browsing.Page(port, name='<b>Ann</b>')
    person = projects.enter(made, '<b>Ann</b>').id
    assert page.get('/dashboard')[0] == 307
    assert page.headers['location'] == '/'
    body = {'annotator': person, 'active': False}
    assert page.send('/api/active', body)[0] == 403
    boss = browsing.Page(port)
    status, found = boss.send('/api/enter', {'token': token})
    assert (status, found['next']) == (200, '/dashboard')
    # An admin's page has its own token.
    status, text = boss.get('/dashboard')
    assert status == 200
    assert b'<strong>4</strong> of 8 answers' in text
    assert b'&lt;b&gt;Ann&lt;/b&gt;' in text
    boss.csrf = text.decode().partition('"csrf": "')[2].partition('"')[0]
    assert boss.send('/api/active', body) == (200, {'active': False})
    assert page.json('/api/task')['task'] is None
    assert boss.get('/api/task')[0] == 403
    body = {'annotator': person, 'active': True}
    assert boss.send('/api/active', body)[0] == 200


def test_other_tasks_have_choices(tmp_path):
  made = projects.make(tmp_path, 8, 'prefer', prompts=2)
  person = projects.enter(made, 'ann')
  while task := answering.next_task(made, person):
    value = dict(zip(('left', 'right'), task['images'], strict=True))
    sent = projects.answer({'choice': 'left', **value}, turn=task['turn'])
    answering.submit(made, person, task['lease'], sent)
  found = summarise(made)
  assert found.choices == {'left': 6}
  assert found.annotators[0].left == 1
  assert found.alpha == found.differences == {}
