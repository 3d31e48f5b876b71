"""Scores the images of a source with several scorers at once."""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping

from tqdm import tqdm

from rahf.data.images import inputs
from rahf.data.sources.item import Item, Load
from rahf.data.sources.source import Source
from rahf.errors import InputError
from rahf.evaluation.generator_judgement import Measure, no_shared_prompt
from rahf.evaluation.generator_tally import (
  NO_PROMPT,
  NOT_FINITE,
  UNREADABLE,
  ScoredImage,
)
from rahf.inference.feedback import Feedback
from rahf.inference.output_ranges import ModelOutputs, Output, Scale
from rahf.inference.score_stream import Prepared, prepare_image, score_stream
from rahf.inference.scorer import Scorer, check_prompt

_MISALIGNED = Output(
  'the share of the words of the prompt that the image misses, by the threshold of the '
  'model',
  Scale((0.0, 1.0), 'higher is worse'),
)


def measures(scorer: str, outputs: ModelOutputs) -> list[Measure]:
  """Returns the numbers that a scorer gives for an image.

  They are its scores, the mean of each of its maps, and the share of misaligned words
  if it judges words. Words after the end of what it reads count as aligned.

  Args:
    scorer: its name, with which theirs begin.
  """
  found = dict(outputs.scores)
  for name, one in outputs.maps.items():
    found[f'{name}_map'] = one._replace(meaning=f'the mean of the map: {one.meaning}')
  if outputs.keywords:
    found['misaligned'] = _MISALIGNED
  return [
    Measure(
      f'{scorer}/{name}',
      one.meaning,
      one.scale.range,
      one.scale.direction,
      one.scale.direction == 'higher is better',
    )
    for name, one in found.items()
  ]


def values(feedback: Feedback) -> tuple[float, ...]:
  """Returns the values of `measures`, in the same order."""
  found = [*feedback.scores.values()]
  found += [float(one.mean()) for one in feedback.small_maps.values()]
  if feedback.keywords is not None:
    # A prompt of punctuation has no words, and none is missed.
    found.append(len(feedback.misaligned) / max(len(feedback.keywords), 1))
  return tuple(found)


def check_shared_prompt(sources: Mapping[str, Source]) -> None:
  """Fails before anything is scored if generators cannot be compared.

  Reads all sources row by row until a prompt was seen in each, which is the first one
  if they have the same order.

  Raises:
    InputError: there is no such prompt, or a source has changed.
  """
  seen: dict[str, dict[str, None]] = {name: {} for name in sources}
  rows = (source.read(lambda _: True) for source in sources.values())
  for row in itertools.zip_longest(*rows):
    new = [_prompt(loaded[1]()) if loaded else '' for loaded in row]
    for prompts, prompt in zip(seen.values(), new, strict=True):
      if prompt:
        prompts[prompt] = None
    if any(p and all(p in prompts for prompts in seen.values()) for p in new):
      return
  raise no_shared_prompt(seen)


def score_source(
  scorers: Mapping[str, Scorer], source: Source, *, title: str
) -> Iterator[ScoredImage]:
  """Yields all images of the source in order, with a progress bar.

  Args:
    scorers: by name, all of one batch size.
    title: of the progress bar.

  Raises:
    InputError: a file of the source has changed.
  """
  rows, prepare = source.read(lambda _: True), functools.partial(_prepare, scorers)
  with tqdm(
    total=source.rows, desc=title, unit='image', mininterval=1, disable=None
  ) as bar:
    left_out = 0
    for image, found in score_stream(scorers, rows, prepare, bar):
      scored = _with_values(image, found[0]) if found else image
      if scored.left_out:
        left_out += 1
        bar.set_postfix(left_out=left_out, refresh=False)
      yield scored


def _prepare(
  scorers: Mapping[str, Scorer], row: tuple[int, Load]
) -> Prepared[ScoredImage]:
  position, load = row
  item = load()
  image = ScoredImage(item.uid or str(position), '')
  if item.image is None:
    return _left_out(image, UNREADABLE, item.error or 'there is no image')
  if not (prompt := _prompt(item)):
    return _left_out(image, NO_PROMPT, item.error or 'its prompt is empty or not text')
  image = image._replace(prompt=prompt)
  if item.error:
    return _left_out(image, UNREADABLE, item.error)
  try:
    pixels = inputs.read_pixels(item.image)
    return Prepared(image, [prepare_image(scorers, pixels, item.prompt)])
  except InputError as error:
    return _left_out(image, UNREADABLE, str(error))
  except Exception as error:  # Decoders raise many kinds.
    return _left_out(image, UNREADABLE, f'{type(error).__name__}: {error}')


def _prompt(item: Item) -> str:
  """Returns the prompt by which images are matched, '' for none."""
  try:
    check_prompt(item.prompt)
  except InputError:
    return ''
  return item.prompt.strip()


def _left_out(image: ScoredImage, kind: str, reason: str) -> Prepared[ScoredImage]:
  return Prepared(image._replace(left_out=kind, reason=reason))


def _with_values(image: ScoredImage, found: Mapping[str, Feedback]) -> ScoredImage:
  numbers = tuple(itertools.chain.from_iterable(map(values, found.values())))
  if not all(map(math.isfinite, numbers)):
    return image._replace(left_out=NOT_FINITE, reason='a score is not finite')
  cut = [name for name, feedback in found.items() if feedback.truncated]
  return image._replace(values=numbers, truncated=cut)
