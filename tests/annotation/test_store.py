"""The store: tables and migrations, assignment, answers, and what changes later."""

import dataclasses
import sqlite3
import time

import projects
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rahf.annotation import (
  answering,
  database,
  items,
  people,
  project,
)
from rahf.annotation.answering import ConflictError
from rahf.annotation.tables import ANSWERS, ITEMS, LEASES, METADATA, REVISIONS
from rahf.errors import InputError


def test_migrations_make_the_tables(made):
  with made.store.read() as connection:
    assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_files_survive_a_power_failure(in_file):
  with in_file.store.read() as connection:
    mode = connection.exec_driver_sql('PRAGMA journal_mode').scalar()
    synchronous = connection.exec_driver_sql('PRAGMA synchronous').scalar()
  assert (mode, synchronous) == ('wal', 2)


def test_a_store_of_a_later_version_is_refused(in_file, tmp_path):
  with in_file.store.write() as connection:
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
  with pytest.raises(InputError, match='a later version of rahf'):
    project.open_store(tmp_path / 'project')
  (tmp_path / 'other').mkdir()
  (tmp_path / f'other/{database.FILE}').write_text('no database' * 100)
  with pytest.raises(InputError, match='not a database'):
    project.open_store(tmp_path / 'other')


def test_each_image_is_asked_of_k_people_and_of_nobody_twice(made):
  seen = {}
  for name in 'abc':
    person = projects.enter(made, name)
    seen[name] = []
    while task := answering.next_task(made, person):
      seen[name].append(task['item'])
      answering.submit(made, person, task['lease'], projects.answer())
  assert all(len(set(found)) == len(found) for found in seen.values())
  asked = [item for found in seen.values() for item in found]
  assert sorted(asked) == [1, 1, 2, 2, 3, 3]
  assert [row.completed for row in projects.rows(made, ITEMS)] == [2, 2, 2]
  assert not projects.rows(made, LEASES)


def test_a_lease_keeps_a_task_until_it_expires(made):
  one, two, three = (projects.enter(made, name) for name in 'abc')
  first = answering.next_task(made, one)
  assert answering.next_task(made, one) == first
  assert answering.next_task(made, two)['item'] == first['item']
  # Two people are wanted and both have begun.
  assert answering.next_task(made, three)['item'] != first['item']
  with made.store.write() as connection:
    connection.execute(
      sa.update(LEASES)
      .where(LEASES.c.annotator.in_((one.id, three.id)))
      .values(expires=time.time() - 1)
    )
  # The place of the first is free, but they also get it back.
  assert answering.next_task(made, three)['item'] != first['item']
  answering.submit(made, one, first['lease'], projects.answer())
  assert projects.rows(made, ANSWERS)[0].item == first['item']


def test_an_answer_that_comes_late_is_stored_all_the_same(made):
  one, two, three = (projects.enter(made, name) for name in 'abc')
  late = answering.next_task(made, one)
  with made.store.write() as connection:
    connection.execute(sa.update(LEASES).values(expires=0))
  for person in (two, three):
    task = answering.next_task(made, person)
    assert task['item'] == late['item']
    answering.submit(made, person, task['lease'], projects.answer())
  answering.submit(made, one, late['lease'], projects.answer())
  assert projects.rows(made, ITEMS)[0].completed == 3


def test_sending_an_answer_again_stores_it_once(made):
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  answer = projects.answer()
  first = answering.submit(made, person, task['lease'], answer)
  assert answering.submit(made, person, task['lease'], answer) == first
  assert len(projects.rows(made, ANSWERS)) == 1
  with pytest.raises(ConflictError, match='another tab'):
    answering.submit(made, person, task['lease'], projects.answer())
  with pytest.raises(ConflictError, match='belongs to another'):
    answering.submit(made, projects.enter(made, 'b'), task['lease'], answer)


def test_the_latest_answer_can_be_changed_and_the_earlier_is_kept(made):
  person = projects.enter(made, 'a')
  assert answering.last_answer(made, person) is None
  for number in range(2):
    task = answering.next_task(made, person)
    value = projects.rich_value(number)
    stored = answering.submit(made, person, task['lease'], projects.answer(value))
  last = answering.last_answer(made, person)
  assert (last['answer'], last['item'], last['draft']) == (stored, task['item'], value)
  changed = projects.rich_value(3)
  answering.revise(made, person, stored, projects.answer(changed, seconds=2.0))
  row = projects.rows(made, ANSWERS)[1]
  assert row.value == changed
  assert row.seconds == pytest.approx(min(row.seconds, 2.0), abs=0.1)
  assert [one.value for one in projects.rows(made, REVISIONS)] == [value]
  with pytest.raises(ConflictError, match='only the latest'):
    answering.revise(made, person, stored - 1, projects.answer())
  # A remark alone is a change too.
  answering.revise(made, person, stored, projects.answer(changed, flag='dark'))
  assert projects.rows(made, ANSWERS)[1].flag == 'dark'
  skipped = projects.answer(status='skipped')
  answering.revise(made, person, stored, skipped)
  assert [row.completed for row in projects.rows(made, ITEMS)] == [1, 0, 0]


def test_a_skipped_image_is_asked_of_others(made):
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  answer = projects.answer({}, status='skipped', flag=' broken image ')
  answering.submit(made, person, task['lease'], answer)
  assert answering.next_task(made, person)['item'] != task['item']
  (row,) = projects.rows(made, ANSWERS)
  assert (row.status, row.flag, row.value) == ('skipped', 'broken image', {})
  other, asked = projects.enter(made, 'b'), []
  while found := answering.next_task(made, other):
    asked.append(found['item'])
    answering.submit(made, other, found['lease'], projects.answer())
  assert task['item'] in asked
  assert projects.rows(made, ITEMS)[0].completed == 1


def test_a_draft_is_kept(made):
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  assert answering.save_draft(made, person, task['lease'], {'misaligned_words': [2]})
  draft = answering.next_task(made, person)['draft']
  assert draft['misaligned_words'] == [2]
  assert draft['scores'] == {}
  other = projects.enter(made, 'b')
  assert not answering.save_draft(made, other, task['lease'], {})
  with pytest.raises(InputError, match='positions of the 4 words'):
    answering.save_draft(made, person, task['lease'], {'misaligned_words': [4]})


def test_seconds_are_at_most_those_that_have_passed(made):
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  answering.submit(made, person, task['lease'], projects.answer(seconds=500))
  assert 0 <= projects.rows(made, ANSWERS)[0].seconds < 5


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    ({'scores': {'overall': 6}}, 'scores: give 1 to 5'),
    ({'scores': {'overall': 1}}, 'the score plausibility is missing'),
    ({'nothing': []}, 'misalignment_points: mark something'),
    ({'nothing': ['misaligned_words']}, 'misaligned_words are marked, and said'),
    ({'implausibility_points': [[0.5, 1.1]]}, 'is not .x, y. inside'),
    ({'implausibility_points': [[True, 0.5]]}, 'is not .x, y. inside'),
    ({'misaligned_words': ['red']}, 'positions'),
    ({'other': 1}, 'unknown fields: other'),
  ],
)
def test_an_impossible_answer_is_refused(in_file, change, problem):
  person = projects.enter(in_file, 'a')
  task = answering.next_task(in_file, person)
  bad = projects.answer(projects.rich_value(**change))
  with pytest.raises(InputError, match=problem):
    answering.submit(in_file, person, task['lease'], bad)
  assert not projects.rows(in_file, ANSWERS)
  assert answering.next_task(in_file, person) == task


def test_a_table_may_grow_but_not_change(made, tmp_path):
  before = items.read('rich', made.images, tmp_path / 'prompts.csv').items
  projects.write_images(tmp_path, 5)
  now = items.read('rich', made.images, tmp_path / 'prompts.csv').items
  made, added = project.update(made, {'answers': 3}, now)
  assert added == 2
  assert [row.uid for row in projects.rows(made, ITEMS)] == [
    '00',
    '01',
    '02',
    '03',
    '04',
  ]
  assert project.load(made.store).settings.answers == 3
  person = projects.enter(made, 'a')
  task = answering.next_task(made, person)
  answering.submit(made, person, task['lease'], projects.answer())
  with pytest.raises(InputError, match='03 is no longer in the table'):
    project.update(made, {}, before)
  other = [now[0]._replace(prompt='a dog'), *now[1:]]
  with pytest.raises(
    InputError, match=r"00 has changed .* has answers: prompt was 'a "
  ):
    project.update(made, {}, other)
  image = made.images / '03.png'
  image.write_bytes((made.images / '04.png').read_bytes())
  other = items.read('rich', made.images, tmp_path / 'prompts.csv').items
  with pytest.raises(InputError, match=r'03 has changed .* images was'):
    project.update(made, {}, other)
  for name, value in (('task', 'prefer'), ('images', '/else'), ('seed', 1)):
    with pytest.raises(InputError, match=f'--{name}={value}, but the project'):
      project.update(made, {name: value}, None)
  assert len(projects.rows(made, ITEMS)) == 5
  assert len(projects.rows(made, ANSWERS)) == 1


def test_images_that_cannot_be_used_are_named(tmp_path):
  images = projects.write_images(tmp_path, 2)
  (images / 'bad.png').write_bytes(b'\x89PNG\r\n\x1a\nxx')
  table = [
    {'uid': '00', 'prompt': 'a cat'},
    {'uid': '01', 'prompt': ' ?! '},
    {'uid': 'bad', 'prompt': 'a dog'},
    {'uid': 'gone', 'prompt': 'a bird'},
    {'uid': 'link', 'prompt': 'a fish'},
  ]
  (tmp_path / 'elsewhere.png').write_bytes((images / '00.png').read_bytes())
  (images / 'link.png').symlink_to(tmp_path / 'elsewhere.png')
  projects.write_table(tmp_path, table)
  found = items.read('rich', images, tmp_path / 'prompts.csv')
  assert [item.uid for item in found.items] == ['00']
  assert list(found.left_out) == ['01', 'bad', 'gone', 'link']
  assert 'outside the folder' in found.left_out['link']
  assert 'has no words' in found.left_out['01']
  assert 'no PNG, JPEG or WebP file' in found.left_out['gone']
  with pytest.raises(InputError, match='no such folder'):
    items.read('rich', tmp_path / 'else', tmp_path / 'prompts.csv')
  with pytest.raises(InputError, match='needs --prompts'):
    items.read('rich', images, None)


def test_invitations_are_stored_hashed_and_replaced(in_file):
  first = people.invite(in_file.store, 'Ann')
  session = people.enter_with_token(in_file.store, first)
  assert people.of_session(in_file.store, session).name == 'Ann'
  second = people.invite(in_file.store, ' Ann ')
  assert people.of_session(in_file.store, session) is None
  assert people.enter_with_token(in_file.store, first) is None
  session = people.enter_with_token(in_file.store, second)
  path = in_file.store.engine.url.database
  stored = '\n'.join(sqlite3.connect(path).iterdump())
  for secret in (first, second, session):
    assert secret not in stored
  with pytest.raises(InputError, match='enters with an invitation'):
    people.enter_with_name(in_file.store, 'Ann')
  with pytest.raises(InputError, match='is annotator already'):
    people.invite(in_file.store, 'Ann', people.ADMIN)
  for name in ('', ' ', 'x' * 81, 'a\nb', 'a\u202eb'):
    with pytest.raises(InputError, match='a name has'):
      people.enter_with_name(in_file.store, name)
  people.leave(in_file.store, session)
  assert people.of_session(in_file.store, session) is None


def test_whoever_is_stopped_gets_no_task(made):
  person = projects.enter(made, 'a')
  people.set_active(made.store, person.id, False)
  person = projects.enter(made, 'a')
  assert answering.next_task(made, person) is None


def test_settings_have_ranges(in_file):
  for name, value in (('answers', 0), ('repeats', 0.9), ('task', 'poor')):
    with pytest.raises(InputError, match=f'--{name}={value}'):
      dataclasses.replace(in_file.settings, **{name: value})
