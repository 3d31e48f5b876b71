"""Exports, read by the commands that they are for, and imports."""

import json
import pathlib

import projects
import pytest

from rahf import improve
from rahf.annotation import answering, exports, items, project, transfer
from rahf.annotation.settings import Settings
from rahf.data.datasets.annotated import prepare_annotated
from rahf.data.labels import raw
from rahf.data.labels.consolidate import consolidate
from rahf.data.preferences import pairs
from rahf.data.storage.records import open_split
from rahf.errors import InputError


def answer_all(made, name: str, value) -> None:
  person = projects.enter(made, name)
  while task := answering.next_task(made, person):
    sent = projects.answer(value(task), turn=task['turn'])
    answering.submit(made, person, task['lease'], sent)


@pytest.fixture
def rich(tmp_path):
  made = projects.make(tmp_path / 'first', 4)
  for number, name in enumerate(('ann', 'ben')):
    answer_all(made, name, lambda task, n=number: projects.rich_value(n + task['item']))
  yield made
  made.store.close()


def test_raw_annotations_are_prepared_as_they_are(rich, tmp_path):
  path = tmp_path / 'annotations.jsonl'
  assert exports.write_raw(rich, path) == 8
  folder = tmp_path / 'first'
  directory, report = prepare_annotated(
    tmp_path / 'data',
    name='mine',
    annotations=path,
    images=folder / 'images',
    prompts=folder / 'prompts.csv',
    dev=0,
    test=0,
  )
  assert report.lines == []
  (record,) = (r for r in open_split(directory, 'train') if r.uid == '01')
  # Overall of 1 + 2 and 1 + 3 on a scale from 1 to 5.
  assert record.scores == pytest.approx((0.25, 0.5, 0.75, 0.625))
  assert record.keyword_shares == (0, 0, 0.5, 0.5)
  assert raw.read(path)['00'][0].misalignment_points == []
  first = consolidate(raw.read(path)['01'], record.tokens, 60, 80)
  assert first.maps[0][30, 20] == 1
  assert not first.maps[1].any()


def test_an_export_loads_into_another_store(rich, tmp_path):
  person = projects.enter(rich, 'ann')
  last = answering.last_answer(rich, person)
  answering.revise(rich, person, last['answer'], projects.answer())
  path = tmp_path / 'all.jsonl'
  assert transfer.export(rich, path) == 8
  other = projects.make(tmp_path / 'first', 4, folder='again')
  assert transfer.load(other, path) == 8
  assert transfer.load(other, path) == 0
  assert list(transfer.lines(other)) == list(transfer.lines(rich))
  assert answering.next_task(other, projects.enter(other, 'cem')) is None
  text = path.read_text()
  assert 'invitation' not in text
  assert 'csrf' not in text


@pytest.mark.parametrize(
  ('change', 'problem'),
  [
    ({'kind': 'other'}, 'is unknown'),
    ({'uid': '99'}, "'99' is not in the project"),
    ({'annotator': 'eve'}, "'eve' has no line before"),
    ({'key': '0' * 32}, 'has another answer to 00'),
    ({'seconds': 'long'}, "seconds = 'long' must be a number"),
    ({'turn': 1.5}, 'turn = 1.5 must be a whole number'),
    ({'value': {'scores': {}}}, 'the score plausibility is missing'),
  ],
)
def test_an_import_is_all_or_nothing(rich, tmp_path, change, problem):
  lines = list(transfer.lines(rich))
  path = tmp_path / 'all.jsonl'
  other = projects.make(tmp_path / 'first', 4, folder='again')
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines[:-7]))
  assert transfer.load(other, path) == 1
  lines[-8] |= change
  lines = [*lines[:-8], *lines[-7:], lines[-8]]
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  with pytest.raises(InputError, match=rf'all.jsonl:\d+ cannot be loaded: .*{problem}'):
    transfer.load(other, path)
  assert sum(line['kind'] == 'answer' for line in transfer.lines(other)) == 1


def test_preferences_in_pick_a_pic_s_columns(tmp_path):
  made = projects.make(tmp_path, 9, 'prefer', prompts=2)
  # The higher uid is better; equal thirds are a tie.
  with made.store.read() as connection:
    stored = connection.execute(answering.sa.select(answering.ITEMS)).all()
  uids = {row.id: [image['uid'] for image in row.images] for row in stored}

  def choose(task):
    left, right = (int(uids[task['item']][n]) for n in task['images'])
    choice = 'tie' if left // 3 == right // 3 else 'left' if left > right else 'right'
    return dict(
      zip(('choice', 'left', 'right'), (choice, *task['images']), strict=True)
    )

  for name in ('ann', 'ben'):
    answer_all(made, name, choose)
  # Pools of five and four images.
  assert exports.write_pairs(made, tmp_path / 'pairs') == 2 * (4 + 3)
  found = list(pairs.open_pairs(tmp_path / 'pairs', 'train'))
  assert {pair.prompt for pair in found} == {f'{projects.PROMPT} {n}' for n in (0, 1)}
  for pair in found:
    thirds = [int(uid) // 3 for uid in pair.uids]
    expected = 0.5 if thirds[0] == thirds[1] else float(pair.uids[0] > pair.uids[1])
    assert pair.preference == expected
    assert pair.has_label
    assert pair.models == tuple(f'm{int(uid) % 3}' for uid in pair.uids)
    path = made.images / f'{pair.uids[1]}.png'
    assert pair.images[1] == path.read_bytes()
    assert pair.num_example_per_prompt == (8 if pair.prompt.endswith('0') else 6)
  # Each image of a pool was seen by each annotator.
  seen = {uid for pair in found if pair.user_id == 1 for uid in pair.uids}
  assert len(seen) == 9


def test_a_study_from_make_to_tally(tmp_path, capsys):
  """Raters who prefer the left at random sides prefer neither generator."""
  for name in ('new', 'old'):
    projects.write_images(tmp_path / name, 6)
    for number in range(6):
      image = tmp_path / name / f'images/{number:02}.png'
      image.with_suffix('.txt').write_text(f'prompt {number}')
  generators = [f'{name}={tmp_path / name / "images"}' for name in ('new', 'old')]
  out = tmp_path / 'study'
  flags = ['--raters=2', '--repeats=0.5', '--identical=0.2', f'--out={out}']
  assert improve.main(['study', 'make', *generators, *flags]) == 0
  found = items.read('compare', out, None)
  store = project.open_store(tmp_path / 'project', new=True)
  made = project.create(store, Settings('compare', str(out)), found.items)
  for name in ('ann', 'ben'):
    answer_all(made, name, lambda task: {'choice': 'left'})
  with pytest.raises(InputError, match='has no free place'):
    projects.enter(made, 'cem')
  assert exports.write_study(made, tmp_path / 'answers.csv') == 2 * (6 + 3 + 1)
  capsys.readouterr()
  key = str(tmp_path / 'study-key.csv')
  assert improve.main(['study', 'tally', key, str(tmp_path / 'answers.csv')]) == 0
  printed = capsys.readouterr().out
  assert 'The left was preferred in 100.0 %' in printed
  assert 'Repeats answered alike: 0.0 %' in printed


def test_a_damaged_study_is_named(tmp_path):
  with pytest.raises(InputError, match=r'has no questions.csv'):
    items.read('compare', tmp_path, None)
  table = 'question,rater,prompt,left,right\n1,1,a cat,images/a.png,images/b.png\n'
  (tmp_path / 'questions.csv').write_text(table)
  with pytest.raises(InputError, match=r'line 2: images/.\.png: .*No such file'):
    items.read('compare', tmp_path, None)
  path = pathlib.Path(tmp_path / 'prompts.csv')
  path.write_text('uid,prompt\n1,a\n')
  with pytest.raises(InputError, match='--prompts is not for'):
    items.read('compare', tmp_path, path)
