"""One evaluation step: what the model says of a batch, and how wrong it is.

Axis letters: B batch, H W map size, L prompt tokens, T target tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from rahf.data import schema
from rahf.inference.step import judge_words
from rahf.models.rahf import RAHF
from rahf.runtime import sharding
from rahf.training import losses
from rahf.training.losses import LabelSums


class Predictions(NamedTuple):
  """What the model says of a batch, and its errors under teacher forcing.

  `index` is the batch's own: a process has only some rows of it, but all of these.
  """

  index: Int[Array, 'B']
  maps: Float[Array, 'B 2 H W']
  scores: Float[Array, 'B 4']
  keywords: Int[Array, 'B T']
  p_misaligned: Float[Array, 'B L']
  truncated: Bool[Array, 'B']
  errors: LabelSums
  counts: LabelSums


def make_predict(
  model: RAHF,
  options,
  mark_ids: tuple[int, ...],
  length: int,
  gather: Callable[[Any], Any] = lambda params: params,
) -> Callable[[Any, schema.Batch], Predictions]:
  """Returns the inference step: maps, scores, keywords both ways, and the errors.

  Args:
    options: `config.keywords`.
    mark_ids: the pieces of the mark.
    length: of a target.
    gather: makes of the state's parameters what the model is applied with.
  """

  def predict(params: Any, batch: schema.Batch) -> Predictions:
    params = gather(params)

    def run(method, *args, **kwargs):
      return model.apply({'params': params}, *args, method=method, **kwargs)

    with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
      fused = run(RAHF.encode, batch.image, batch.text, train=False)
      outputs = run(RAHF.read, fused, batch.target, train=False)
      if options.decoder == 'beam':
        keywords = run(RAHF.decode_beam, fused, length, options.beams)
      else:
        keywords = run(RAHF.decode_greedily, fused, length)
      p_misaligned = judge_words(
        model,
        params,
        fused,
        batch.text,
        batch.word_end,
        decoder=options.decoder,
        mark_ids=mark_ids,
        length=length,
      )
    return Predictions(
      batch.index,
      outputs.maps,
      outputs.scores,
      keywords,
      p_misaligned,
      batch.truncated,
      losses.sum_errors(outputs, batch),
      losses.count_labels(batch),
    )

  return predict
