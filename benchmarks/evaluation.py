"""Times evaluation: the network, the keyword decoder alone, and the metrics.

  python benchmarks/evaluation.py [--config=configs/quickstart.py] [--batches=4]

Reads batches of the config's test split; generates the data if missing. The parameters
are untrained, so the decoder hardly ever ends before the full length: a trained one
stops sooner.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import machine
import numpy as np
from absl import app, flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from rahf.data.pipeline.batches import eval_batches
from rahf.data.schema import Batch
from rahf.data.storage.records import RecordSplit
from rahf.data.tokenizer import Tokenizer, at_word_ends
from rahf.evaluation import samples
from rahf.evaluation.score_example import ExampleLabels
from rahf.evaluation.score_example import score as score_example
from rahf.models.rahf import RAHF, Fused
from rahf.runtime import sharding
from rahf.tasks import make_task
from rahf.tasks.feedback_session import FeedbackSession
from rahf.training.eval_step import EvalResult, make_eval_step
from rahf.training.setup import set_up

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/quickstart.py', 'What to evaluate.'
)
_BATCHES = flags.DEFINE_integer('batches', 4, 'Number of timed batches.')


def main(argv: list[str]) -> None:
  del argv
  config = _CONFIG.value
  task = make_task(config)
  setup = set_up(task)
  session = task.open(setup, epath.Path())
  split = session.data.split(config.eval.final_split)
  batches = list(
    itertools.islice(
      eval_batches(
        split,
        session.data.tokenizer,
        session.data.options,
        batch_size=config.eval.batch_size,
      ),
      _BATCHES.value,
    )
  )
  print(f'{machine.processor()}; {machine.accelerator()}')
  model = session.model.config
  print(
    f'{model.variant}, {model.image_size} px, {len(batches)} batches of '
    f'{config.eval.batch_size}, {session.data.options.target_length} ids at most'
  )
  params = setup.states.make(config.seed).params
  with jax.set_mesh(session.setup.mesh):
    measure(session, split, batches, params, config.keywords)


def measure(
  session: FeedbackSession,
  split: RecordSplit,
  batches: list[Batch],
  params: Any,
  options: ConfigDict,
) -> None:
  """Prints a line per part; `options` is config.keywords."""
  model, length = session.model, session.data.options.target_length
  size = len(batches[0].index)
  on_device = [sharding.put_batch(batch, session.setup.mesh) for batch in batches]

  def encode(params: Any, batch: Batch) -> Fused:
    inputs = batch.image, batch.text
    return model.apply({'params': params}, *inputs, train=False, method=RAHF.encode)

  def decode(params: Any, fused: Fused) -> jax.Array:
    return model.apply({'params': params}, fused, length, method=RAHF.decode_greedily)

  mark_ids = session.data.tokenizer.mark_ids
  eval_step = make_eval_step(model, options, mark_ids, length, session.setup.gather)
  seconds, found = _time(eval_step, {'params': params}, on_device)
  _line('inference step', seconds, size)
  seconds, fused = _time(encode, params, on_device)
  _line('  of it encoding', seconds, size)
  seconds, _ = _time(decode, params, fused)
  _line('  of it greedy decoding', seconds, size)

  found = [jax.tree.map(np.asarray, predictions) for predictions in found]
  start = time.perf_counter()
  examples = score(session.data.tokenizer, split, found)
  _line('labels and metrics', time.perf_counter() - start, examples)


def score(tokenizer: Tokenizer, split: RecordSplit, found: list[EvalResult]) -> int:
  """Reads the labels, computes all metrics, and returns the number of examples."""
  scored = []
  examples = [
    (batch, row)
    for batch in found
    for row, index in enumerate(batch.index)
    if index >= 0
  ]
  for batch, row in examples:
    record = split[int(batch.index[row])]
    pieces = tokenizer.encode(record.prompt)
    words = tokenizer.read_marks(pieces, batch.outputs.keywords[row])
    prediction = ExampleLabels(
      batch.outputs.maps[row],
      batch.outputs.scores[row],
      words.labels,
      words.unplaced,
      at_word_ends(batch.outputs.p_misaligned[row], pieces),
    )
    scored.append(score_example(record, prediction))
  samples.metrics(scored)
  return len(examples)


def _time(function: Callable, params: Any, inputs: list) -> tuple[float, list]:
  """Returns the median seconds without compilation, and the results."""
  function = jax.jit(function)
  jax.block_until_ready(function(params, inputs[0]))
  seconds, results = [], []
  for value in inputs:
    start = time.perf_counter()
    results.append(jax.block_until_ready(function(params, value)))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds), results


def _line(name: str, seconds: float, examples: int) -> None:
  print(
    f'{name:32}{examples / seconds:10.1f} examples/s'
    f'{seconds / examples * 1e3:10.2f} ms/example'
  )


if __name__ == '__main__':
  app.run(main)
