"""Blind studies: what raters see, and what their answers say."""

import csv
import pathlib

import numpy as np
import pytest
from PIL import Image

from rahf import improve
from rahf.learning import study
from rahf.learning.study import ANSWERS, Answered, Question

PROMPTS = [f'prompt {number}' for number in range(30)]


def answered(plan, value_of) -> list[Answered]:
  return [
    Answered(one, PROMPTS[one.pair % len(PROMPTS)], value_of(one)) for one in plan
  ]


def test_every_rater_sees_every_pair_once_and_checks_besides():
  plan = study.plan(30, 4, repeats=0.2, identical=0.1, seed=0)
  assert len(plan) == 4 * (30 + 6 + 3)
  for rater in range(1, 5):
    own = [one for one in plan if one.rater == rater]
    pairs = {one.pair: one.swapped for one in own if one.kind == 'pair'}
    assert pairs.keys() == set(range(30))
    repeats = [one for one in own if one.kind == 'repeat']
    assert all(one.swapped != pairs[one.pair] for one in repeats)
    assert own[-6:] == repeats
  orders = {tuple(one.pair for one in plan if one.rater == r) for r in range(1, 5)}
  assert len(orders) == 4
  assert 0.3 < np.mean([one.swapped for one in plan]) < 0.7
  assert plan == study.plan(30, 4, repeats=0.2, identical=0.1, seed=0)
  assert plan != study.plan(30, 4, repeats=0.2, identical=0.1, seed=1)


def test_a_planted_preference_is_found():
  random = np.random.default_rng(0)
  plan = study.plan(30, 6, repeats=0.2, identical=0.1, seed=0)
  found = study.tally(
    answered(
      plan,
      lambda one: (
        0 if one.kind == 'identical' else int(random.choice([2, 1, 1, 0, -1]))
      ),
    )
  )
  assert sum(found.counts) == 180
  assert found.mean.low < 0.6 < found.mean.high
  assert found.mean.low > 0
  assert found.sign_p < 1e-3
  assert found.wilcoxon_p < 1e-3
  assert found.left_p > 0.01
  assert found.identical == 1


def test_no_preference_is_found_where_there_is_none():
  """Over many studies, the interval covers 0 about as often as it says."""
  covered = rejected = 0
  for seed in range(60):
    random = np.random.default_rng(seed)
    plan = study.plan(30, 5, repeats=0, identical=0, seed=seed)
    found = study.tally(answered(plan, lambda _, r=random: int(r.integers(-2, 3))))
    covered += found.mean.low <= 0 <= found.mean.high
    rejected += found.wilcoxon_p < 0.05
  assert covered >= 54
  assert rejected <= 9


def test_a_rater_who_always_prefers_the_left_is_noticed():
  plan = study.plan(30, 2, repeats=0.5, identical=0.5, seed=0)
  found = study.tally(answered(plan, lambda one: study.value_of(one, 'left')))
  assert found.left == 1
  assert found.left_p < 1e-6
  assert found.repeated == 0
  assert found.identical == 0
  assert found.mean.low < 0 < found.mean.high


def test_raters_who_differ_make_the_interval_wider():
  plan = study.plan(30, 2, repeats=0, identical=0, seed=0)
  alike = study.tally(answered(plan, lambda one: 1 if one.pair % 2 else 0))
  apart = study.tally(answered(plan, lambda one: one.rater - 1))
  assert alike.mean.value == apart.mean.value == 0.5
  widths = [one.mean.high - one.mean.low for one in (alike, apart)]
  assert widths[1] > 2 * widths[0]


def test_values_are_turned_by_sides():
  question = Question(1, 'pair', 0, swapped=False)
  values = [study.value_of(question, answer) for answer in ANSWERS]
  assert values == [2, 1, 0, -1, -2]
  values = [study.value_of(question._replace(swapped=True), a) for a in ANSWERS]
  assert values == [-2, -1, 0, 1, 2]


@pytest.fixture
def generators(tmp_path) -> list[str]:
  """Folders of two generators: images of one are dark, of the other bright."""
  for name, low in (('new', 200), ('old', 0)):
    folder = tmp_path / name
    folder.mkdir()
    for number, prompt in enumerate(PROMPTS[:6]):
      random = np.random.default_rng(number)
      pixels = random.integers(low, low + 50, (8, 8, 3), np.uint8)
      Image.fromarray(pixels).save(folder / f'{number}.png')
      (folder / f'{number}.txt').write_text(prompt)
  return [f'{name}={tmp_path / name}' for name in ('new', 'old')]


def read(path: pathlib.Path) -> list[dict[str, str]]:
  with path.open(newline='') as file:
    return [*csv.DictReader(file)]


def run(*arguments: object) -> int:
  return improve.main(['study', *map(str, arguments)])


def test_from_folders_to_a_tally(generators, tmp_path, capsys):
  """A rater who looks at the pixels and prefers bright images is understood."""
  out = tmp_path / 'study'
  assert run('make', *generators, '--raters=3', '--repeats=0.5', f'--out={out}') == 0
  assert '27 questions (9 repeats, 0 of identical' in capsys.readouterr().out
  questions = read(out / 'questions.csv')
  assert len(questions) == 3 * (6 + 3)
  files = [path for path in out.rglob('*') if path.is_file()]
  assert not any('new' in path.name or 'old' in path.name for path in files)
  for row in questions:
    assert row.keys() == {'question', 'rater', 'prompt', 'left', 'right'}

  def brightness(path: str) -> float:
    return float(np.asarray(Image.open(out / path)).mean())

  lines = ['question,answer']
  for row in questions:
    left, right = brightness(row['left']), brightness(row['right'])
    answer = 'much_left' if left > right else 'much_right'
    lines.append(f'{row["question"]},{"same" if left == right else answer}')
  (tmp_path / 'answers.csv').write_text('\n'.join(lines))
  capsys.readouterr()
  key = tmp_path / 'study-key.csv'
  assert run('tally', key, tmp_path / 'answers.csv') == 0
  printed = capsys.readouterr().out
  assert 'new ≫ old' in printed
  row = next(line for line in printed.splitlines() if line.startswith('| here '))
  assert [cell.strip() for cell in row.strip('|').split('|')][1:] == [
    *('18', '0', '0', '0', '0', '+2.000')
  ]
  assert 'Repeats answered alike: 100.0 %' in printed
  assert ' 129 |' in printed
  assert '+0.523' in printed


def test_a_single_answer_without_a_preference(generators, tmp_path, capsys):
  out = tmp_path / 'study'
  assert run('make', *generators, f'--out={out}') == 0
  (tmp_path / 'answers.csv').write_text('question,answer\n1,same')
  capsys.readouterr()
  assert run('tally', tmp_path / 'study-key.csv', tmp_path / 'answers.csv') == 0
  printed = capsys.readouterr().out
  assert '- Mean: +0.000.\n' in printed
  assert '- No answer has a preference.\n' in printed
  assert '5 of 6 questions have no answer yet' in printed


def test_mistakes(generators, tmp_path, capsys):
  def fails(*arguments: object) -> str:
    assert run(*arguments) == 2
    return capsys.readouterr().err

  out = tmp_path / 'study'
  twice = [generators[0], generators[0]]
  assert 'both generators have the name' in fails('make', *twice, f'--out={out}')
  assert 'is not NAME=IMAGES' in fails('make', 'a', 'b=c', f'--out={out}')
  (tmp_path / 'old' / '3.png').unlink()
  message = fails('make', *generators, f'--out={out}')
  assert "new has 1 images of 'prompt 3', but old has 0" in message
  assert not out.exists()
  (tmp_path / 'new' / '3.png').unlink()
  assert run('make', *generators, f'--out={out}') == 0
  key, answers = tmp_path / 'study-key.csv', tmp_path / 'answers.csv'
  for text, expected in (
    ('question,answer\n99,left', "question '99' is not in"),
    ('question,answer\n1,better', "the answer is 'better'; give one of much_left"),
    ('question,answer\n1,left\n1,left', 'question 1 has an answer before'),
    ('question\n1', 'no column answer'),
    ('question,answer\n', 'has no answer to a pair'),
  ):
    answers.write_text(text)
    assert expected in fails('tally', key, answers)
