"""Do simulated raters prefer the generator that learned from RAHF? As table 5.

  python benchmarks/closed_loop_study.py [--scratch=runs/closed_loop]

After `closed_loop.py`, whose test images it takes: the generator that was trained on
what RAHF chose (new) against the one that was not (old); and as a control two halves of
the images of old against each other. Both go through `python -m rahf.improve study`:
raters get the folder that `make` writes and nothing else. They are simulated: each sees
what the template judge sees (how undamaged an image is, and which share of the prompt's
attributes is right), with errors and habits of their own, and answers that one image is
better, or much better, where the difference is large enough for them.

Predicted: new is preferred, and of the two halves neither.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import closed_loop_common as common
import numpy as np
from absl import app, flags
from PIL import Image

from rahf.data.datasets.shapes.template_judge import judge

_RATERS = flags.DEFINE_integer('raters', 6, 'Simulated.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Repetition of closed_loop.py to take.')
# Standard deviation of a rater's error; differences that count as better, much better.
ERROR, BETTER, MUCH = 0.15, 0.2, 0.6


def main(argv: list[str]) -> None:
  """Makes both studies, answers and tallies them."""
  del argv
  folder = common.scratch() / 'study'
  for names, arms in (
    (('new', 'old'), (('rahf', 0), ('base', 0))),
    (('again', 'old'), (('base', 1), ('base', 0))),
  ):
    place = folder / '_'.join(names)
    if not place.exists():
      place.mkdir(parents=True)
      for name, (arm, number) in zip(names, arms, strict=True):
        write_images(place / name, arm, number)
      tables = [f'{name}={place}/{name}/images.csv' for name in names]
      raters = f'--raters={_RATERS.value}'
      improve('study', 'make', *tables, raters, f'--out={place}/study')
      answer(place / 'study', place / 'answers.csv')
    print(f'\n## {" against ".join(names)}\n', flush=True)
    improve('study', 'tally', f'{place}/study-key.csv', f'{place}/answers.csv')


def improve(*arguments: str) -> None:
  """Runs the command."""
  subprocess.run([sys.executable, '-m', 'rahf.improve', *arguments], check=True)


def write_images(folder: pathlib.Path, arm: str, number: int) -> None:
  """Writes one image of each prompt, and their table."""
  (folder / 'images').mkdir(parents=True)
  test, group = common.test_images(arm, _SEED.value)
  images = np.load(test / 'images.npy')[number::group]
  prompts = json.loads((test / 'prompts.json').read_text())[number::group]
  with (folder / 'images.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(('file_name', 'prompt'))
    for row, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
      Image.fromarray(image).save(folder / f'images/{row}.png')
      writer.writerow((f'images/{row}.png', prompt))


def answer(study: pathlib.Path, answers: pathlib.Path) -> None:
  """Answers the questions of a study from what raters can see."""
  seen: dict[tuple[str, str], float] = {}

  def quality(path: str, prompt: str) -> float:
    if (path, prompt) not in seen:
      pixels = np.asarray(Image.open(study / path).convert('RGB'))
      verdict = judge(pixels, prompt, common.WORLD, common.LEVEL.value)
      words = np.mean([one for one in verdict.words if one is not None])
      intact = bool(verdict.objects) * (1 - verdict.damage)
      seen[path, prompt] = float(intact + words)
    return seen[path, prompt]

  with (study / 'questions.csv').open(newline='') as file:
    questions = [*csv.DictReader(file)]
  with answers.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(('question', 'answer'))
    for one in questions:
      random = np.random.default_rng([int(one['rater']), int(one['question'])])
      left, right = (quality(one[side], one['prompt']) for side in ('left', 'right'))
      # Some raters say 'better' sooner than others.
      strictness = np.random.default_rng(int(one['rater'])).uniform(0.7, 1.4)
      writer.writerow(
        (one['question'], said(left - right + random.normal(0, ERROR), strictness))
      )


def said(difference: float, strictness: float) -> str:
  """Returns the answer to a difference, left minus right."""
  side = 'left' if difference > 0 else 'right'
  if abs(difference) >= MUCH * strictness:
    return f'much_{side}'
  return side if abs(difference) >= BETTER * strictness else 'same'


if __name__ == '__main__':
  app.run(main)
