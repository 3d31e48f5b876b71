"""The contrastive task with its data: batches, vocabulary, evaluation, export."""

from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import Float

from rahf.data.open_dataset import prepared_directory
from rahf.data.storage.records import open_split
from rahf.errors import InputError
from rahf.evaluation.score_example import DIVERGED
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.runtime.distributed import StopSignal
from rahf.tasks import clip_data
from rahf.tasks.data_session import DataSession
from rahf.tasks.feedback_data import open_data
from rahf.tasks.split_evaluator import SplitEvaluator
from rahf.training.setup import Setup
from rahf.training.task import Variables

ABOUT = '# CLIP\n\nEmbeds images and texts in one space. Trained by contrast.\n'


class ContrastiveSession(DataSession):
  """The contrastive task with its data; a `training.task.Session`."""

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    clip_data.write_description(workdir, card, self.data.tokenizer)

  def evaluator(self) -> 'ContrastiveEvaluator':
    step = self.setup.task.make_eval_step(self.setup.gather)
    return ContrastiveEvaluator(self.setup, self.data, step)


class ContrastiveEvaluator(SplitEvaluator):
  """Finds the text of each image among those of a split, and the reverse.

  Examples with misaligned words are left out.
  """

  headlines = ('retrieval/image_to_text', 'retrieval/text_to_image')

  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    split = self.data.split(split_name)
    shape = len(split), self.setup.config.clip.projection
    images, texts = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for found in self.outputs(variables, split_name, stop):
      images[found.index] = found.image
      texts[found.index] = found.text
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

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  config = setup.config

  def prompts() -> Iterator[str]:
    split = open_split(prepared_directory(config.data, config.data.name), 'train')
    return (record.prompt for _, record in split.undamaged())

  texts = clip_data.clip_texts(config)
  tokenizer = clip_data.open_or_learn_tokenizer(config, texts, workdir, prompts)
  return ContrastiveSession(setup, open_data(config, tokenizer))
