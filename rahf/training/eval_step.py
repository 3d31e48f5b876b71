"""One evaluation step, as a pure function of (variables, batch).

Axis letter: B batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import linen as nn
from jaxtyping import Array, Bool, Int

from rahf.data import schema
from rahf.inference.step import judge_words
from rahf.models.rahf import RAHF, Outputs
from rahf.runtime import sharding
from rahf.training import losses
from rahf.training.losses import LabelSums
from rahf.training.task import Variables


class EvalResult(NamedTuple):
  """Model outputs for a batch, and their errors.

  Attributes:
    index, truncated: copied from the batch, of which a process has only some rows.
    outputs: without the logits, which are large.
    errors: under teacher forcing.
    counts: of the labels that the errors are summed over.
  """

  index: Int[Array, 'B']
  truncated: Bool[Array, 'B']
  outputs: Outputs
  errors: LabelSums
  counts: LabelSums


def make_eval_step(
  model: RAHF,
  options,
  mark_ids: tuple[int, ...],
  length: int,
  gather: Callable[[Any], Any] = lambda params: params,
) -> Callable[[Variables, schema.Batch], EvalResult]:
  """Returns the step; jit it under the mesh.

  Args:
    options: `config.keywords`.
    mark_ids: token ids of the mark.
    length: tokens of a target.
    gather: turns the state's parameters into those that the model is applied with.
  """

  def eval_step(variables: Variables, batch: schema.Batch) -> EvalResult:
    params = gather(variables['params'])

    def run(method, *args, **kwargs):
      return model.apply({'params': params}, *args, method=method, **kwargs)

    with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
      fused = run(RAHF.encode, batch.image, batch.text, train=False)
      outputs = run(RAHF.predict, fused, batch.target, train=False)
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
    return EvalResult(
      batch.index,
      batch.truncated,
      outputs._replace(logits=None, keywords=keywords, p_misaligned=p_misaligned),
      losses.sum_errors(outputs, batch),
      losses.count_labels(batch),
    )

  return eval_step
