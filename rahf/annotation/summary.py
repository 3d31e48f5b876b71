"""What whoever runs a project wants to know: progress, agreement, and odd annotators.

Axis letters: A annotators, N items.
"""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa

from rahf.annotation import rich
from rahf.annotation.people import ADMIN
from rahf.annotation.project import Project
from rahf.annotation.settings import COMPARE, RICH
from rahf.annotation.tables import (
  ANNOTATORS,
  ANSWERS,
  DONE,
  GOLD,
  ITEMS,
  REPEAT,
  TASK,
)
from rahf.data import label_words, schema
from rahf.data.labels.agreement import krippendorff_alpha
from rahf.learning.study import ANSWERS as CHOICES

# Answers, and annotators, before somebody is said to deviate.
LEAST_ANSWERS, LEAST_ANNOTATORS = 5, 4
# Robust standard deviations from the others' median.
_FAR = 3.0
# Share of gold questions, or repeats, below which somebody is said to deviate.
_LOW_SHARE = 0.6
# Shares of preferences for one side outside of these are said to be one-sided.
_ONE_SIDED = (0.2, 0.8)


class Row(NamedTuple):
  """One annotator.

  Attributes:
    id, name, active: as stored.
    done, skipped: answers.
    seconds: median of an answer; NaN without one.
    gold, repeats: good ones and all: gold questions, and repeats within one step.
    deviation: mean difference of scores from the mean of the others, in steps; NaN.
    left: share of preferences for the left; NaN.
    remarks: why the annotator deviates.
  """

  id: int
  name: str
  active: bool
  done: int
  skipped: int
  seconds: float
  gold: tuple[int, int]
  repeats: tuple[int, int]
  deviation: float
  left: float
  remarks: tuple[str, ...] = ()


class Summary(NamedTuple):
  """The state of a project.

  Attributes:
    completed, wanted: answers to tasks.
    items, complete: items, and those with all answers.
    annotators: with at least one answer, or active.
    alpha: Krippendorff's alpha of each score, and of the words; empty if not rich.
    differences: by score, how many images have a largest minus smallest score of
      0, 1, 2, 3, 4; as figure 4 of the paper.
    choices: by name, how often each was chosen; empty for rich.
    flags: the latest remarks: (uid, annotator, text).
  """

  completed: int
  wanted: int
  items: int
  complete: int
  annotators: tuple[Row, ...]
  alpha: Mapping[str, float]
  differences: Mapping[str, tuple[int, ...]]
  choices: Mapping[str, int]
  flags: Sequence[tuple[str, str, str]]


def summarise(project: Project) -> Summary:
  """Returns the state of a project now."""
  with project.store.read() as connection:
    items = connection.execute(sa.select(ITEMS)).all()
    people = connection.execute(sa.select(ANNOTATORS).order_by(ANNOTATORS.c.id)).all()
    answers = connection.execute(sa.select(ANSWERS).order_by(ANSWERS.c.id)).all()
  compare = project.settings.task == COMPARE
  wanted = 1 if compare else project.settings.answers
  by_id = {item.id: item for item in items}
  asked = [item for item in items if item.gold is None]
  is_rich = project.settings.task == RICH
  tasks = [one for one in answers if one.purpose == TASK and one.status == DONE]
  names = {person.id: person.name for person in people}
  scores = score_table(tasks) if is_rich else {}
  given = collections.defaultdict(list)
  for one in answers:
    given[one.annotator].append(one)
  apart = deviations(scores)
  rows = [
    _row(person, given[person.id], by_id, apart.get(person.id, math.nan))
    for person in people
    if person.role != ADMIN
  ]
  return Summary(
    completed=sum(min(item.completed, wanted) for item in asked),
    wanted=wanted * len(asked),
    items=len(asked),
    complete=sum(item.completed >= wanted for item in asked),
    annotators=tuple(with_remarks(rows)),
    alpha=_alphas(tasks, by_id, scores) if is_rich else {},
    differences={name: _spread(table) for name, table in scores.items()},
    choices={} if is_rich else _choices(tasks),
    flags=[
      (by_id[one.item].uid, names[one.annotator], one.flag)
      for one in answers[::-1]
      if one.flag
    ][:50],
  )


def score_table(answers: Sequence[Any]) -> dict[str, dict[tuple[int, int], int]]:
  """Returns by score, and by item and annotator, the answers."""
  return {
    name: {(one.item, one.annotator): one.value['scores'][name] for one in answers}
    for name in schema.SCORES
  }


def _alphas(
  answers: Sequence[Any], items: Mapping[int, Any], scores: Mapping[str, Mapping]
) -> dict[str, float]:
  words = {
    ((one.item, number), one.annotator): float(number in one.value[rich.WORDS])
    for one in answers
    for number in range(len(label_words.label_spans(items[one.item].prompt)))
  }
  found = {name: _alpha(table, 'interval') for name, table in scores.items()}
  return {**found, 'words': _alpha(words, 'nominal')}


def _alpha(ratings: Mapping[tuple[Any, int], float], level: Any) -> float:
  if not ratings:
    return math.nan
  units, people = (
    {key: place for place, key in enumerate(dict.fromkeys(keys))}
    for keys in zip(*ratings, strict=True)
  )
  table = np.full((len(people), len(units)), np.nan)
  for (unit, person), value in ratings.items():
    table[people[person], units[unit]] = value
  return krippendorff_alpha(table, level)


def _spread(ratings: Mapping[tuple[int, int], int]) -> tuple[int, ...]:
  """Counts items by their largest minus smallest score, if there are two."""
  by_item = collections.defaultdict(list)
  for (item, _), score in ratings.items():
    by_item[item].append(score)
  spread = [max(found) - min(found) for found in by_item.values() if len(found) > 1]
  return tuple(spread.count(steps) for steps in range(5))


def _choices(answers: Sequence[Any]) -> dict[str, int]:
  counts = collections.Counter(one.value['choice'] for one in answers)
  order = [*CHOICES, 'tie']
  return {name: counts[name] for name in order if counts[name]}


def _row(
  person: Any,
  answers: Sequence[Any],
  items: Mapping[int, Any],
  deviation: float,
) -> Row:
  done = [one for one in answers if one.status == DONE]
  gold = [
    rich.agrees(one.value, items[one.item].gold)
    for one in done
    if one.purpose == GOLD and items[one.item].gold is not None
  ]
  first = {one.item: one.value for one in done if one.purpose == TASK}
  repeats = [
    _repeated(first[one.item], one.value)
    for one in done
    if one.purpose == REPEAT and one.item in first
  ]
  sides = [str(one.value.get('choice', '')) for one in done]
  left, right = (
    sum(side in (name, f'much_{name}') for side in sides) for name in ('left', 'right')
  )
  return Row(
    id=person.id,
    name=person.name,
    active=person.active,
    done=len(done),
    skipped=len(answers) - len(done),
    seconds=float(np.median([one.seconds for one in done])) if done else math.nan,
    gold=(sum(gold), len(gold)),
    repeats=(sum(repeats), len(repeats)),
    deviation=deviation,
    left=left / (left + right) if left + right else math.nan,
  )


def _repeated(before: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
  """Returns whether a repeat has the same scores, give or take a step."""
  return all(
    abs(again['scores'][name] - score) <= 1 for name, score in before['scores'].items()
  )


def deviations(
  scores: Mapping[str, Mapping[tuple[int, int], int]],
) -> dict[int, float]:
  """Returns each annotator's mean difference from the mean of the others."""
  apart = collections.defaultdict(list)
  for table in scores.values():
    totals: dict[int, list[int]] = collections.defaultdict(list)
    for (item, _), score in table.items():
      totals[item].append(score)
    for (item, person), score in table.items():
      others = len(totals[item]) - 1
      if others:
        mean = (sum(totals[item]) - score) / others
        apart[person].append(abs(score - mean))
  return {person: float(np.mean(found)) for person, found in apart.items()}


def with_remarks(rows: Sequence[Row]) -> list[Row]:
  """Returns the rows with what is unusual about them.

  Speed and deviation are compared with the other annotators by their median and median
  absolute deviation, which a single odd annotator does not move.
  """
  remarks = [[] for _ in rows]
  for name, above, below in (
    ('seconds', 'slower than the others', 'faster than the others'),
    ('deviation', 'scores deviate from the others', ''),
  ):
    values = np.array([getattr(row, name) for row in rows], float)
    known = [
      place
      for place, row in enumerate(rows)
      if row.done >= LEAST_ANSWERS and np.isfinite(values[place])
    ]
    if len(known) < LEAST_ANNOTATORS:
      continue
    middle = np.median(values[known])
    # Annotators who are all alike must not be told apart by rounding.
    spread = max(1.4826 * np.median(np.abs(values[known] - middle)), 0.1 * middle, 1e-3)
    for place in known:
      distance = (values[place] - middle) / spread
      if distance > _FAR:
        remarks[place].append(above)
      elif distance < -_FAR and below:
        remarks[place].append(below)
  for row, found in zip(rows, remarks, strict=True):
    for (good, count), text in (
      (row.gold, 'gold questions missed'),
      (row.repeats, 'repeats answered otherwise'),
    ):
      if count >= LEAST_ANSWERS and good / count < _LOW_SHARE:
        found.append(text)
    # Without a preference the share is NaN, which lies on neither side.
    low, high = _ONE_SIDED
    one_sided = row.left < low or row.left > high
    if row.done >= 2 * LEAST_ANSWERS and one_sided:
      found.append('prefers one side')
  return [
    row._replace(remarks=tuple(found)) for row, found in zip(rows, remarks, strict=True)
  ]
