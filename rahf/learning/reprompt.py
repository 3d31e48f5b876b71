"""Draws an image again with emphasis on the words that it misses.

Where RAHF says that words of the prompt are misaligned, candidates are drawn with the
same noise: the words' attention is multiplied by a weight, or the words are asked for
once more at the end of the prompt. The most aligned is kept, and the image itself is a
candidate.

Axis letters: H W image size.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from rahf.data.label_words import word_spans
from rahf.inference.feedback import Feedback
from rahf.inference.image_generator import ImageGenerator, Request
from rahf.inference.scorer import Scorer
from rahf.learning.score_expression import Expression

MARKED, RANDOM, ALL = WORDS = ('marked', 'random', 'all')


@dataclasses.dataclass(frozen=True)
class RepromptOptions:
  """Which words get emphasis, and how much.

  Attributes:
    weights: what attention to the words is multiplied by, one candidate for each.
    words: MARKED, those that the model finds misaligned; or as controls RANDOM, as many
      words of the prompt at random, or ALL.
    again: whether to ask for the words once more, as a further candidate.
  """

  weights: tuple[float, ...] = (1.5, 2.0, 3.0)
  words: str = MARKED
  again: bool = True


class Reprompted(NamedTuple):
  """An image before and after.

  Attributes:
    image: the best one.
    original: the image at the start.
    words: that got emphasis; empty if none is misaligned, and nothing was drawn again.
    how: what the best candidate was drawn with; '' for the original.
    before, after: values of the original and of the best image.
  """

  image: UInt8[np.ndarray, 'H W 3']
  original: UInt8[np.ndarray, 'H W 3']
  words: list[str]
  how: str
  before: float
  after: float


def reprompt(
  request: Request,
  scorer: Scorer,
  generator: ImageGenerator,
  by: Expression,
  options: RepromptOptions,
) -> Reprompted:
  """Draws an image, and draws it again if it misses words.

  Args:
    scorer: judges words, against the prompt as it is.
    by: what the best is chosen by, higher is better.

  Raises:
    InputError: the prompt cannot be used by one of the models.
  """
  (original,) = generator.draw([request])
  (found,) = scorer.score([original], request.prompt)
  before = by.finite_value(found.scores)
  spans = chosen_spans(request, found, options.words)
  words = [request.prompt[start:end] for start, end in spans]
  if not spans:
    return Reprompted(original, original, words, '', before, before)
  candidates = _candidates(request, spans, words, generator, options)
  images = [*generator.draw([*candidates.values()])]
  feedback = scorer.score(images, request.prompt)
  values = [by.finite_value(one.scores) for one in feedback]
  best = int(np.argmax(values))
  if not values[best] > before:
    return Reprompted(original, original, words, '', before, before)
  how = [*candidates][best]
  return Reprompted(images[best], original, words, how, before, values[best])


def chosen_spans(
  request: Request, feedback: Feedback, words: str
) -> list[tuple[int, int]]:
  """Returns where the words stand that get emphasis; none if none is misaligned."""
  spans = word_spans(request.prompt)
  marked = [
    span
    for span, (_, p) in zip(spans, feedback.keywords, strict=True)
    if p > feedback.threshold
  ]
  if not marked or words == MARKED:
    return marked
  if words == ALL:
    return spans
  random = np.random.default_rng([request.seed, request.number])
  chosen = random.permutation(len(spans))[: len(marked)]
  return [spans[i] for i in sorted(chosen)]


def _candidates(
  request: Request,
  spans: Sequence[tuple[int, int]],
  words: Sequence[str],
  generator: ImageGenerator,
  options: RepromptOptions,
) -> dict[str, Request]:
  """Returns what to draw by what it is called; all with the noise of the request."""
  found = {}
  for weight in options.weights if generator.takes_emphasis else ():
    emphasis = tuple((start, end, weight) for start, end in spans)
    found[f'attention x {weight:g}'] = request._replace(emphasis=emphasis)
  if options.again or not found:
    prompt = f'{request.prompt}, {", ".join(words)}'
    found['asked again'] = request._replace(prompt=prompt)
  return found
