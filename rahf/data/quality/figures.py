"""Charts of a data set, including figures 2 and 4 of the paper."""

import collections
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rahf.data import schema
from rahf.data.attributes import report
from rahf.data.attributes.table import FILE, UNKNOWN, Attributes
from rahf.data.quality.stats import RecordStats
from rahf.drawing import charts
from rahf.drawing.charts import Histogram

# Means of three scores on [0, 1] are multiples of 1/12, differences of 1/4.
SCORE_EDGES = (np.arange(14) - 0.5) / 12
SHARE = 'share of known values'
DIFFERENCE = 'largest minus smallest score of an image'
DIFFERENCE_EDGES = (np.arange(6) - 0.5) / 4


def write(
  folder: pathlib.Path,
  facts: Mapping[str, Sequence[RecordStats]],
  attributes: Attributes | None = None,
) -> list[str]:
  """Writes each chart to <name>.png; returns the file names.

  Args:
    attributes: of the images; None if they are not known.

  Raises:
    InputError: an image has no attributes.
  """
  pictures = draw(facts)
  if attributes:
    pictures |= draw_by_attribute(facts, attributes)
  folder.mkdir(parents=True, exist_ok=True)
  names = []
  for name, picture in pictures.items():
    names.append(f'{name}.png')
    Image.fromarray(picture).save(folder / names[-1])
  return names


def draw(
  facts: Mapping[str, Sequence[RecordStats]],
) -> dict[str, UInt8[np.ndarray, '_ _ 3']]:
  """Draws histograms by split.

  Returns:
    `scores` (figure 2), `differences` of the annotators' scores (figure 4; only if raw
    annotations exist), `coverage` of the non-empty maps, and `words` per prompt with
    the share that is misaligned.
  """
  scores = _columns(facts, 'scores')
  differences = _columns(facts, 'differences')
  coverage = _columns(facts, 'coverage')
  words = _columns(facts, 'words')
  misaligned = {
    split: 1 - values for split, values in _columns(facts, 'aligned').items()
  }
  found = {'scores': _by_name(schema.SCORES, scores, SCORE_EDGES, 'score')}
  if any((~np.isnan(values)).any() for values in differences.values()):
    found['differences'] = _by_name(
      schema.SCORES, differences, DIFFERENCE_EDGES, DIFFERENCE
    )
  covered = {split: np.where(x > 0, x, np.nan) for split, x in coverage.items()}
  widest = max((np.nanmax(x, initial=0.01) for x in covered.values()), default=1)
  found['coverage'] = _by_name(
    schema.MAPS,
    covered,
    np.linspace(0, widest, 21),
    'share of pixels above 0 in non-empty maps',
  )
  longest = max((x.max(initial=1) for x in words.values()), default=1)
  panels = {
    'number of words': Histogram(
      {split: x[:, 0] for split, x in words.items()}, _word_edges(int(longest))
    ),
    'share of misaligned words': Histogram(
      {split: x[:, 0] for split, x in misaligned.items()}, np.linspace(0, 1, 11)
    ),
  }
  found['words'] = charts.histograms(panels, 'per prompt', SHARE)
  return found


def draw_by_attribute(
  facts: Mapping[str, Sequence[RecordStats]], attributes: Attributes
) -> dict[str, UInt8[np.ndarray, '_ _ 3']]:
  """Draws shares of the answers by split, and figures 2 and 4 by answer.

  Returns:
    `attributes`, and for each question `scores-<question>` of all splits together,
    and `differences-<question>` if raw annotations exist.

  Raises:
    InputError: an image has no attributes.
  """
  by_split = {
    split: attributes.of([one.uid for one in found], FILE)
    for split, found in facts.items()
  }
  pictures = {'attributes': report.draw(by_split)}
  for name in attributes.answers:
    by_answer = collections.defaultdict(list)
    for split, found in facts.items():
      for one, answer in zip(found, by_split[split].answers[name], strict=True):
        if answer != UNKNOWN:
          by_answer[answer].append(one)
    for field, edges, horizontal in (
      ('scores', SCORE_EDGES, 'score'),
      ('differences', DIFFERENCE_EDGES, DIFFERENCE),
    ):
      columns = _columns(by_answer, field)
      if any((~np.isnan(values)).any() for values in columns.values()):
        picture = _by_name(schema.SCORES, columns, edges, horizontal)
        pictures[f'{field}-{name}'] = picture
  return pictures


def _columns(
  facts: Mapping[str, Sequence[RecordStats]], field: str
) -> dict[str, np.ndarray]:
  """Returns a field of all records by split, as an N x values array."""
  return {
    split: np.reshape([getattr(fact, field) for fact in found], (len(found), -1))
    for split, found in facts.items()
  }


def _by_name(
  names: Sequence[str],
  columns: Mapping[str, np.ndarray],
  edges: np.ndarray,
  horizontal: str,
) -> UInt8[np.ndarray, '_ _ 3']:
  panels = {
    name: Histogram({split: x[:, i] for split, x in columns.items()}, edges)
    for i, name in enumerate(names)
  }
  return charts.histograms(panels, horizontal, SHARE)


def _word_edges(longest: int) -> np.ndarray:
  """Returns the edges of about twenty bins of whole words."""
  width = -(-longest // 20)
  return np.arange(0, longest + width + 1, width) - 0.5
