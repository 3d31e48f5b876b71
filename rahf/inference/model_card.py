"""Writes the model card of a model directory: use, outputs, metrics, limits."""

import math

import numpy as np

from rahf.data import schema
from rahf.drawing.markdown import markdown_table
from rahf.evaluation.paper_tables import KEYWORD_METRICS, MAP_METRICS
from rahf.inference import output_ranges
from rahf.inference.model_directory import Description
from rahf.inference.step import ANY_THRESHOLD
from rahf.models.init import abstract_params
from rahf.models.rahf import RAHF
from rahf.pretrained.card import ABOUT
from rahf.runtime.tree import by_path

METRICS = (
  *(f'{name}/{metric}' for name in schema.SCORES for metric in ('plcc', 'srcc')),
  *(f'{name}/{metric}' for name in schema.MAPS for metric in MAP_METRICS),
  *(f'keywords/{metric}' for metric in KEYWORD_METRICS),
  *(f'keywords_constrained/{metric}' for metric in KEYWORD_METRICS),
)
USE = """## Use

`pip install .` in a checkout of rahf, then, with the path of this directory:

```python
import rahf

model = rahf.load('export')
feedback = model.score(['a.png', 'b.png'], ['a red circle', 'a blue square'])
print(feedback[0].scores, feedback[0].misaligned)
feedback[0].overlay('implausibility').save('overlay.png')
```
"""
CAPTIONS = """## Use

Trained on captions alone: maps and scores mean nothing until it is trained on feedback,
with `--config.init.rahf` and the path of this directory.
"""
FILES = """## Files

`model.json` describes everything, `model.safetensors` and `params/` (Orbax) hold the
same parameters, `tokenizer.model` is SentencePiece's. `model.json` has the SHA-256 of
all files but this one, and `rahf.load` compares the files that it reads. Nothing here
is run as code. The directory does not refer to other files and can be moved."""
PROGRAM_NOTE = """`program.jaxexport` is the inference step for cpu, tpu and cuda, of
any batch size: `jax.export.deserialize(bytes).call(params, pixels, text, word_end)`."""


def model_card(description: Description, *, program: bool = False) -> str:
  """Returns the model card in Markdown.

  Args:
    program: whether the directory has `program.jaxexport`.
  """
  about = [USE, _outputs(description), _metrics(description)]
  if description.captions_only:
    about = [CAPTIONS]
  sections = [
    ABOUT,
    _sizes(description),
    *about,
    _origin(description),
    _limits(description),
    FILES + (f' {PROGRAM_NOTE}' if program else ''),
  ]
  return '\n\n'.join(section.strip() for section in sections) + '\n'


def _sizes(description: Description) -> str:
  model = description.model
  shapes = by_path(abstract_params(RAHF(model))).values()
  parameters = sum(math.prod(leaf.shape) for leaf in shapes)
  trained = f'Trained for {description.step:,} steps, by'
  if not description.data:
    trained = 'Made from the weights of another project (see Weights), by'
  return (
    f'- {model.variant}, images of {model.image_size} px, {parameters:,} parameters\n'
    f'- {trained} rahf {description.version}'
  )


def _outputs(description: Description) -> str:
  rows = [
    *(
      ('score', name, output_ranges.SCORE, meaning)
      for name, meaning in output_ranges.SCORES.items()
    ),
    *(
      ('map', name, output_ranges.MAP, meaning)
      for name, meaning in output_ranges.MAPS.items()
    ),
    ('keyword', 'each word', output_ranges.KEYWORD, output_ranges.KEYWORDS),
  ]
  lines = ['| | | range | direction | |', '|---|---|---|---|---|']
  lines += [
    f'| {kind} | {name} | {scale.limits} | {scale.direction} | {meaning} |'
    for kind, name, scale, meaning in rows
  ]
  if description.threshold is None:
    threshold = f'No threshold for words was chosen; {ANY_THRESHOLD} is used.'
  else:
    threshold = (
      f'A word counts as misaligned above {description.threshold:.3f}, which was best '
      f'on the {description.threshold_split} split.'
    )
  table = '\n'.join(lines)
  return f'## What comes out\n\n{table}\n\n{threshold}'


def _metrics(description: Description) -> str:
  splits = description.metrics
  if not splits:
    return '## Metrics\n\nNot evaluated at this step.'
  rows = [
    [name, *(_number(values.get(name)) for values in splits.values())]
    for name in METRICS
    if any(name in values for values in splits.values())
  ]
  note = (
    'PLCC, SRCC, CC, SIM, NSS, AUC-Judd, precision, recall and F1: higher is better; '
    'MSE and KLD: lower. `_empty` is over images without an annotated region.'
  )
  return f'## Metrics\n\n{note}\n\n{markdown_table(["", *splits], rows)}'


def _number(value: float | None) -> str:
  return '–' if value is None or not np.isfinite(value) else f'{value:.4g}'


def _origin(description: Description) -> str:
  """Describes training data and initial weights; only weights if it was not trained."""
  if not description.data:
    return description.weights
  total = sum(one['weight'] for one in description.data.values())
  lines = [
    f'- {name}, {one["weight"] / total:.0%}: {one["terms"]}'
    for name, one in description.data.items()
  ]
  data = '\n'.join(lines)
  return f'## Data\n\nTrained on:\n\n{data}\n\n{description.weights}'


def _limits(description: Description) -> str:
  size, length = description.model.image_size, description.text_length
  cut = '`.truncated` says that the end was cut.'
  if description.joined_words:
    cut += ' Only its words are read, without punctuation, as in training.'
  return f"""## Limits

- Images are scaled to {size} x {size} px whatever their shape; finer detail is lost.
- Of a prompt {length - 1} tokens are read; {cut}
- It reproduces the opinions of the annotators of its data, on images of particular
  generators. On other images scores may rank well and yet be too high or too low.
- It was not made to find unsafe images or text, or to judge people."""
