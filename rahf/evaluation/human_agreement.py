"""Agreement of the annotators: scores each against the others, like a model."""

from collections.abc import Sequence

import numpy as np

from rahf.data import schema
from rahf.data.images import codec
from rahf.data.labels import consolidate, raw
from rahf.data.labels.consolidate import Annotation, ConsolidatedLabels
from rahf.data.storage import manifest
from rahf.data.storage.records import RecordSplit
from rahf.errors import InputError
from rahf.evaluation import samples
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.score_example import ExampleLabels, read_through, score


def annotator_metrics(split: RecordSplit) -> dict[str, float] | None:
  """Returns the metrics of one annotator, with the consolidated others as the truth.

  Each annotator of each image is left out of the truth in turn and measured against it;
  the results are pooled. This is what a person reaches, not an upper bound: predicting
  the mean opinion comes closer to the others than any annotator does.

  Returns:
    None without raw annotations, or if no image has two of them.

  Raises:
    InputError: the raw annotations cannot be read, or do not fit the records.
  """
  file = raw.path(split.directory, split.name)
  if not file.exists():
    return None
  annotations = raw.read(file)
  # Regions are drawn as in the data set's own labels.
  made = manifest.read(split.directory)
  draw = consolidate.DRAW_FUNCTIONS[
    made.settings.get('drawn', 'discs') if made else 'discs'
  ]
  measured = []
  for record in read_through(split, 'annotators'):
    several = annotations.get(record.uid, ())
    try:
      for left_out in range(len(several) if len(several) > 1 else 0):
        measured.append(_measure(record, several, left_out, draw))
    except InputError as error:
      raise InputError(f'{file}, {record.uid}: {error}') from None
  return samples.metrics(measured) if measured else None


def _measure(
  record: schema.Record,
  annotations: Sequence[Annotation],
  left_out: int,
  draw: consolidate.Draw,
) -> EvaluatedExample:
  """Scores one annotator of an image as a prediction of the others' labels."""
  height, width = _map_size(record)

  def labels(chosen: Sequence[Annotation]) -> ConsolidatedLabels:
    return consolidate.consolidate(chosen, record.tokens, height, width, draw)

  one = labels([annotations[left_out]])
  others = labels([*annotations[:left_out], *annotations[left_out + 1 :]])
  # Remove from the truth what this annotator was not asked.
  maps = [
    (np.zeros((height, width)), b'')
    if mine is None or theirs is None
    else (mine, codec.encode_map(theirs))
    for mine, theirs in zip(one.maps, others.maps, strict=True)
  ]
  truth = record._replace(
    keyword_labels=others.keyword_labels if one.keyword_labels else (),
    scores=tuple(np.where(np.isnan(one.scores), np.nan, others.scores).tolist()),
    implausibility_map=maps[0][1],
    misalignment_map=maps[1][1],
  )
  predicted = np.stack([mine for mine, _ in maps])
  return score(
    truth, ExampleLabels(predicted, np.nan_to_num(one.scores), one.keyword_labels)
  )


def _map_size(record: schema.Record) -> tuple[int, int]:
  for name in schema.MAPS:
    if data := getattr(record, f'{name}_map'):
      width, height = codec.upright_size(codec.open_image(data))
      return height, width
  width, height = codec.upright_size(codec.open_image(record.image))
  return height, width
