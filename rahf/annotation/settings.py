"""The settings of a project, stored with it."""

import dataclasses
from typing import Any

from rahf.errors import InputError
from rahf.fileio import validators

RICH, PREFER, COMPARE = TASKS = ('rich', 'prefer', 'compare')
RULES = {
  'task': validators.one_of(TASKS),
  'images': validators.text,
  'answers': validators.whole(1, 1000),
  'repeats': validators.real(0, 0.5),
  'gold': validators.real(0, 0.5),
  'limit': validators.whole(0, 100_000),
  'passing': validators.real(0, 1),
  'minutes': validators.real(1, 24 * 60),
  'seed': validators.whole(0),
  'assist': validators.one_of(('', 'start', 'after')),
  'order': validators.one_of(('table', 'disagreement')),
  'drawn': validators.truth,
}
# What answers already given depend on.
FIXED = ('task', 'images', 'seed', 'drawn')


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of a project.

  Attributes:
    task: what people do, one of TASKS.
    images: absolute path of the folder of images.
    answers: people who are asked about each image.
    repeats: share of the tasks that show an annotator an earlier image again.
    gold: share of the tasks whose answer is known.
    limit: most repeats, and most gold questions, for one annotator.
    passing: share of gold questions that an annotator must answer well to get further
      tasks, once there were five.
    minutes: that a task is kept for the annotator who has opened it.
    seed: of random choices.
    assist: whether a model's prediction is shown: 'start' as the draft to correct,
      'after' once the own answer is stored, '' never.
    drawn: whether a generator draws the images of prefer, and people may type prompts.
    order: which images come first: 'table', or 'disagreement' of model and people.
  """

  task: str
  images: str
  answers: int = 3
  repeats: float = 0.0
  gold: float = 0.1
  limit: int = 20
  passing: float = 0.0
  minutes: float = 30.0
  seed: int = 0
  assist: str = ''
  order: str = 'table'
  drawn: bool = False

  def __post_init__(self):
    """Raises InputError if a setting has no valid value."""
    for name, rule in RULES.items():
      if problem := rule(getattr(self, name)):
        raise InputError(f'--{name}={getattr(self, name)} {problem}')
    if self.drawn and self.task != PREFER:
      raise InputError(f'--drawn is for --task={PREFER}')


def changed(stored: Settings, given: dict[str, Any]) -> Settings:
  """Returns the settings of a running project with those that a user has given.

  Raises:
    InputError: answers already given depend on one that differs.
  """
  for name in FIXED:
    if given.get(name, getattr(stored, name)) != getattr(stored, name):
      raise InputError(
        f'--{name}={given[name]}, but the project was made with '
        f'{getattr(stored, name)}; leave the flag out, or start another project'
      )
  return dataclasses.replace(stored, **given)
