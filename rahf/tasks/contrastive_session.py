"""The contrastive task with its data: batches, vocabulary, evaluation, export."""

import contextlib
import itertools
import json
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath
from jaxtyping import Float
from tqdm import tqdm

from rahf.data.clip_tokenizer import (
  VOCABULARY_FOLDER,
  ClipTokenizer,
  Vocabulary,
  read_vocabulary,
  train_vocabulary,
  write_vocabulary,
)
from rahf.data.open_dataset import prepared_directory
from rahf.data.pipeline.batches import eval_batches
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.storage.records import open_split
from rahf.drawing.markdown import markdown_table
from rahf.errors import InputError
from rahf.evaluation.score_example import DIVERGED
from rahf.fileio import atomic_write
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.reports.tensorboard import TensorBoardWriter
from rahf.runtime import distributed, sharding
from rahf.runtime.distributed import StopSignal
from rahf.tasks import clip_data
from rahf.tasks.data_session import DataSession
from rahf.tasks.feedback_data import FeedbackData, open_data
from rahf.training.batch_spec import batch_shapes
from rahf.training.setup import Setup
from rahf.training.task import Variables

# A vocabulary of one's own is learned from the first prompts for training.
VOCABULARY_PROMPTS = 2000
ABOUT = '# CLIP\n\nEmbeds images and texts in one space. Trained by contrast.\n'


class ContrastiveSession(DataSession):
  """The contrastive task with its data; a `training.task.Session`."""

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    (workdir / 'model_card.md').write_text(card)
    folder = workdir / VOCABULARY_FOLDER
    folder.mkdir(exist_ok=True)
    write_vocabulary(folder, self.data.tokenizer.vocabulary)

  def evaluator(self) -> 'ContrastiveEvaluator':
    return ContrastiveEvaluator(self.setup, self.data)


class ContrastiveEvaluator:
  """Finds the text of each image among those of a split, and the reverse.

  A `training.task.Evaluator`. Examples with misaligned words are left out.
  """

  headlines = ('retrieval/image_to_text', 'retrieval/text_to_image')

  def __init__(self, setup: Setup, data: FeedbackData):
    self._setup, self._data = setup, data
    self._batch_size = setup.config.eval.batch_size
    sharding.check_batch_size('config.eval.batch_size', self._batch_size, setup.mesh)
    step = setup.task.make_eval_step(setup.gather)
    self._eval_step = jax.jit(step, out_shardings=sharding.replicated(setup.mesh))

  def compile(self) -> None:
    """Compiles the step ahead of its first call."""
    rows = sharding.batch_sharding(self._setup.mesh)
    batch = batch_shapes(self._setup.config, self._batch_size, rows)
    variables = self._setup.states.abstract.variables
    self._eval_step = self._eval_step.lower(variables, batch).compile()

  def splits_before(self, split: str) -> Sequence[str]:
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
    metrics = self._measure(variables, split, stop)
    if not distributed.is_first():
      return metrics, ''
    title = f'{self._data.name}, {split} split, step {step}'
    rows = [[name, f'{value:.4g}'] for name, value in metrics.items()]
    table = markdown_table(['', 'value'], rows)
    tables = f'# {title}\n\n{table}\n'
    folder = workdir / 'eval'
    folder.mkdir(exist_ok=True)
    with distributed.interruptible(stop.interruption):
      atomic_write.write(folder / f'{split}-{step}.json', json.dumps(metrics) + '\n')
      atomic_write.write(folder / f'{split}-{step}.md', tables)
    if board:
      board.scalars(step, split, metrics)
      board.text(step, split, tables)
    return metrics, tables

  def _measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    split, mesh = self._data.split(split_name), self._setup.mesh
    batches = eval_batches(
      split,
      self._data.tokenizer,
      self._data.options,
      batch_size=self._batch_size,
      rows=sharding.process_rows(self._batch_size, mesh),
    )
    batches = prefetch(batches, lambda batch: sharding.put_batch(batch, mesh))
    images, texts = (
      np.zeros((len(split), self._setup.config.clip.projection), np.float32)
      for _ in range(2)
    )
    bar = tqdm(
      total=len(split), desc=f'evaluate {split_name}', leave=False, disable=None
    )
    with bar, contextlib.closing(batches):
      for batch in batches:
        stop.check()
        found = jax.tree.map(np.asarray, self._eval_step(variables, batch))
        real = found.index >= 0
        images[found.index[real]] = found.image[real]
        texts[found.index[real]] = found.text[real]
        bar.update(int(real.sum()))
    aligned = np.flatnonzero(split.misaligned_counts() == 0)
    prompts = np.array([split[int(i)].prompt for i in aligned])
    return retrieval(images[aligned], texts[aligned], prompts)


def retrieval(
  images: Float[np.ndarray, 'N E'], texts: Float[np.ndarray, 'N E'], prompts: np.ndarray
) -> dict[str, float]:
  """Returns how often the nearest is right; any of the same prompt is.

  Args:
    images, texts: normalised features of the same examples.
    prompts: their prompts.

  Returns:
    Shares in [0, 1] by name, with that of guessing; NaN without examples.

  Raises:
    InputError: a feature is NaN or infinite.
  """
  if not (np.isfinite(images).all() and np.isfinite(texts).all()):
    raise InputError('the features are NaN or infinite: ' + DIVERGED)
  if not len(prompts):
    return dict.fromkeys(
      ('retrieval/image_to_text', 'retrieval/text_to_image', 'retrieval/chance'),
      float('nan'),
    )
  cosines = images @ texts.T
  same = prompts[:, None] == prompts[None]
  rows = np.arange(len(prompts))
  return {
    'retrieval/image_to_text': float(same[rows, cosines.argmax(1)].mean()),
    'retrieval/text_to_image': float(same[cosines.argmax(0), rows].mean()),
    'retrieval/chance': float(same.mean()),
  }


def open_session(setup: Setup, workdir: epath.Path) -> ContrastiveSession:
  """Opens data and vocabulary.

  Without a vocabulary in the config, a new run learns one from the prompts; a run that
  has started keeps its own.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  config = setup.config
  if config.tokenizer or config.init.clip:
    tokenizer = clip_data.open_tokenizer(config)
  else:
    own = workdir / VOCABULARY_FOLDER
    # The first process decides, since it may be writing the folder.
    known = bool(distributed.from_first(own.exists()))
    vocabulary = read_vocabulary(own) if known else _learn_vocabulary(config)
    tokenizer = ClipTokenizer(vocabulary, 'huggingface', config.clip.text_length)
  return ContrastiveSession(setup, open_data(config, tokenizer))


def _learn_vocabulary(config) -> Vocabulary:
  split = open_split(prepared_directory(config.data, config.data.name), 'train')
  records = itertools.islice(split.undamaged(), VOCABULARY_PROMPTS)
  prompts = (record.prompt for _, record in records)
  return train_vocabulary(prompts, config.clip.vocab_size)
