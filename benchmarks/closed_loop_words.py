"""Does emphasis on the words that RAHF marks help more than on others? An experiment.

  python benchmarks/closed_loop_words.py GENERATOR [--scratch=runs/closed_loop]

GENERATOR is the export of `configs/muse_shapes.py:generator`; the two RAHF are those of
`closed_loop.py`, which comes first. An image of each prompt is drawn. Where RAHF marks
words, candidates are drawn with the same noise and emphasis on

  marked  these words
  random  as many other or the same words of the prompt, at random
  all     all words

and the most aligned to RAHF is kept, the image itself included. The template judge says
which share of the prompt's attributes is right, and the second RAHF how aligned images
are. The three differ in the words alone. `other noise` draws as many images with other
noise instead, without emphasis: what a choice among images gains by itself.

Predicted: marked > random and all; each better than the image itself.
"""

import os
import pathlib

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import closed_loop_arms as arms
import closed_loop_common as common
import machine
import numpy as np
from absl import app, flags
from tqdm import tqdm

import rahf
from rahf.data.schema import SCORES
from rahf.drawing.markdown import markdown_table
from rahf.inference.generator import Generator
from rahf.inference.image_generator import Request
from rahf.learning import reprompt
from rahf.learning.reprompt import MARKED, RepromptOptions
from rahf.learning.score_expression import parse

_PROMPTS = flags.DEFINE_integer('prompts', 200, 'New prompts.', lower_bound=4)
BY = parse('alignment', SCORES)
NOISE = 'other noise'
MEASURES = ('words', 'second.alignment', 'rahf.alignment')


def main(argv: list[str]) -> None:
  """Draws what is missing, and prints the tables."""
  generator = pathlib.Path(argv[1]).absolute()
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  scenes = common.scenes(common.WORDS_SEED, _PROMPTS.value)
  requests = [Request(one.prompt.text, 2000 + i) for i, one in enumerate(scenes)]
  muse = rahf.load(generator, rows=1 + len(RepromptOptions().weights))
  folder = common.scratch() / 'words'
  found = {}
  for kind in ('original', *reprompt.WORDS, NOISE):

    def make(to: pathlib.Path, kind=kind) -> None:
      images = [draw(one, muse, kind) for one in tqdm(requests, kind)]
      prompts = [one.prompt for one in requests]
      judged = common.judge_all(images, prompts, common.scorers())
      np.savez(to / 'found.npz', **judged)

    with np.load(common.done(folder / kind, make) / 'found.npz') as file:
      found[kind] = dict(file)
  report(found)


def draw(request: Request, muse: Generator, kind: str) -> np.ndarray:
  """Returns the image that one kind of emphasis leads to."""
  scorer = common.opened(common.scorers()['rahf'])
  if kind in reprompt.WORDS:
    options = RepromptOptions(words=kind)
    return reprompt.reprompt(request, scorer, muse, BY, options).image
  if kind == NOISE:
    return other_noise(request, muse)
  (image,) = muse.draw([request])
  return image


def other_noise(request: Request, muse: Generator) -> np.ndarray:
  """Returns the most aligned of as many images, if words are marked."""
  scorer, options = common.opened(common.scorers()['rahf']), RepromptOptions()
  (image,) = muse.draw([request])
  (feedback,) = scorer.score([image], request.prompt)
  if not reprompt.chosen_spans(request, feedback, MARKED):
    return image
  number = len(options.weights) + options.again
  others = [request._replace(number=1 + i) for i in range(number)]
  images = [image, *muse.draw(others)]
  values = [BY.value(one.scores) for one in scorer.score(images, request.prompt)]
  return images[int(np.argmax(values))]


def report(found: dict[str, dict[str, np.ndarray]]) -> None:
  """Prints means, and what was predicted."""
  rows = [
    [kind, *(arms.shown(values[name]) for name in MEASURES)]
    for kind, values in found.items()
  ]
  print(markdown_table(('emphasis', *MEASURES), rows))
  print('\nPredictions:\n')
  pairs = [(MARKED, one) for one in found if one != MARKED]
  rows = [
    [
      f'{one} > {other}',
      *(
        arms.shown(found[one][name] - found[other][name], '+') for name in MEASURES[:2]
      ),
    ]
    for one, other in pairs
  ]
  print(markdown_table(('', *MEASURES[:2]), rows))


if __name__ == '__main__':
  app.run(main)
