"""The common part of evaluators whose metrics come from one pass over a split."""

import abc
import contextlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from PIL import Image
from tqdm import tqdm

from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.prefetch import prefetch
from rahf.drawing.markdown import markdown_table
from rahf.fileio import atomic_write
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks.feedback_data import FeedbackData
from rahf.tasks.jitted_eval_step import JittedEvalStep
from rahf.training.setup import Setup
from rahf.training.task import Variables


class SplitEvaluator(abc.ABC):
  """Evaluates a task's model on splits; a `training.task.Evaluator`.

  Attributes:
    headlines: the metrics to print.
  """

  headlines: Sequence[str]

  def __init__(
    self,
    setup: Setup,
    data: FeedbackData,
    step: Callable[[Variables, Any], NamedTuple],
  ):
    """Jits the step.

    Args:
      step: of variables and a batch; its result has arrays [B, ...], and `index`.

    Raises:
      InputError: the devices do not divide `config.eval.batch_size`.
    """
    self.setup, self.data = setup, data
    self._eval_step = JittedEvalStep(setup, step)

  @abc.abstractmethod
  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    """Returns all metrics by name."""

  def pictures(
    self, variables: Variables, split_name: str
  ) -> Mapping[str, Sequence[Image.Image]]:
    """Returns pictures to look at, by name; called by all processes."""
    del variables, split_name
    return {}

  def lines(self, split_name: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Returns what to write as JSON lines after `measure`, by name."""
    del split_name
    return {}

  def compile(self) -> None:
    """Compiles the step ahead of its first call."""
    self._eval_step.compile()

  def splits_before(self, split: str) -> Sequence[str]:
    del split
    return ()

  def evaluate(
    self,
    variables: Variables,
    workdir: epath.Path,
    step: int,
    split: str,
    stop: StopSignal,
    board: TensorBoardWriter | None = None,
  ) -> tuple[dict[str, float], str]:
    """Evaluates a split; see `training.task.Evaluator`."""
    metrics = self.measure(variables, split, stop)
    pictures = self.pictures(variables, split)
    if not distributed.is_first():
      return metrics, ''
    rows = [[name, f'{value:.4g}'] for name, value in metrics.items()]
    table = markdown_table(['', 'value'], rows)
    tables = f'# {self.data.name}, {split} split, step {step}\n\n{table}\n'
    folder = workdir / 'eval'
    folder.mkdir(exist_ok=True)
    with distributed.interruptible(stop.interruption):
      for name, sheets in pictures.items():
        for number, sheet in enumerate(sheets):
          path = folder / f'{split}-{step}-{name}-{number}.png'
          atomic_write.write(path, _png(sheet))
      for name, rows in self.lines(split).items():
        text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
        atomic_write.write(folder / f'{split}-{step}-{name}.jsonl', text)
      atomic_write.write(folder / f'{split}-{step}.json', json.dumps(metrics) + '\n')
      atomic_write.write(folder / f'{split}-{step}.md', tables)
    if board:
      board.scalars(step, split, metrics)
      board.text(step, split, tables)
      for name, sheets in pictures.items():
        board.pictures(step, f'{split}/{name}', [*map(np.asarray, sheets)])
    return metrics, tables

  def outputs(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> Iterator[Any]:
    """Yields what the step returns for each batch, on the host, without padding rows.

    Raises:
      Interrupted: a signal came.
    """
    split, size = self.data.split(split_name), self.setup.config.eval.batch_size
    batches = eval_batches(
      split,
      self.data.tokenizer,
      self.data.options,
      batch_size=size,
      captions=self.data.captions,
      rows=sharding.process_rows(size, self.setup.mesh),
    )
    yield from self.run_step(variables, batches, len(split), split_name, stop)

  def run_step(
    self,
    variables: Variables,
    batches: Iterable[Any],
    count: int,
    split_name: str,
    stop: StopSignal,
  ) -> Iterator[Any]:
    """Yields what `outputs` does, for these batches with `count` rows.

    Raises:
      Interrupted: a signal came.
    """
    mesh = self.setup.mesh
    batches = prefetch(batches, lambda batch: sharding.put_batch(batch, mesh))
    bar = tqdm(total=count, desc=f'evaluate {split_name}', leave=False, disable=None)
    with bar, contextlib.closing(batches):
      for batch in batches:
        stop.check()
        found = jax.tree.map(np.asarray, self._eval_step(variables, batch))
        real = found.index >= 0
        yield type(found)(*(array[real] for array in found))
        bar.update(int(real.sum()))


def _png(picture: Image.Image) -> bytes:
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return file.getvalue()
