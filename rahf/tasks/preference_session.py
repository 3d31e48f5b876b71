"""The preference task with its data: pairs, vocabulary, evaluator."""

import dataclasses
from collections.abc import Iterable, Iterator

from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from rahf.data.clip_tokenizer import ClipTokenizer
from rahf.data.preferences.pair_batches import PairDecoder, PairReader
from rahf.data.preferences.pair_order import check_lanes
from rahf.data.preferences.pairs import PairSplit, open_pairs
from rahf.data.schema import PairBatch
from rahf.fileio import paths
from rahf.pretrained import loading
from rahf.pretrained.card import model_card
from rahf.runtime import sharding
from rahf.tasks import clip_data
from rahf.tasks.data_session import DataSession
from rahf.tasks.preference_evaluator import PreferenceEvaluator
from rahf.training.setup import Setup

ABOUT = (
  '# PickScore\n\nA CLIP that scores how much people prefer an image for its prompt: '
  'exp(logit_scale) x the cosine of image and prompt, higher is better. The softmax of '
  'the scores of several images of one prompt gives the probability that each is '
  'preferred.\n'
)


@dataclasses.dataclass(frozen=True)
class PairData:
  """Preference pairs, and how they are read.

  Attributes:
    folder: of the parquet files.
    names: of the splits there, by 'train', 'dev' and 'test'.
    tokenizer: CLIP's.
    image_size: of the square that CLIP sees.
    labelled_only: whether evaluations leave out pairs with has_label False.
  """

  folder: epath.Path
  names: dict[str, str]
  tokenizer: ClipTokenizer
  image_size: int
  labelled_only: bool

  def split(self, name: str) -> PairSplit:
    """Opens a split by 'train', 'dev' or 'test'."""
    return open_pairs(self.folder, self.names[name])

  def reader(self, name: str) -> PairReader:
    """Returns a reader of a split's pairs, for training or for evaluation."""
    labelled_only = self.labelled_only and name != 'train'
    decoder = PairDecoder.for_clip(self.tokenizer, self.image_size, labelled_only)
    return PairReader(self.split(name), decoder)

  def train_batches(
    self, config: ConfigDict, mesh: Mesh, start_step: int
  ) -> Iterator[PairBatch]:
    """Yields this process's rows of each batch from `start_step` on, endlessly."""
    size = config.train.batch_size
    return self.reader('train').train_batches(
      batch_size=size,
      lanes=config.pairs.lanes,
      seed=config.seed,
      start_step=start_step,
      rows=sharding.process_rows(size, mesh),
    )

  def describe(self, splits: tuple[str, ...]) -> str:
    """Describes the splits in a line of text."""
    counts = ', '.join(
      f'{self.names[name]} {len(self.split(name)):,}' for name in splits
    )
    return f'Data:  {counts} pairs, {self.tokenizer.size:,} tokens, from {self.folder}'


class PreferenceSession(DataSession):
  """The preference task with its data; a `training.task.Session`."""

  def write_description(self, workdir: epath.Path, plan: loading.Plan) -> None:
    card = model_card(ABOUT, self.setup.task.title, plan)
    clip_data.write_description(workdir, card, self.data.tokenizer)

  def evaluator(self) -> PreferenceEvaluator:
    return PreferenceEvaluator(self.setup, self.data)


def open_session(setup: Setup, workdir: epath.Path) -> PreferenceSession:
  """Opens pairs and vocabulary.

  Raises:
    InputError: one of them is missing, or does not fit the model.
  """
  config = setup.config
  folder = pairs_folder(config)
  check_lanes(config.pairs.lanes, config.train.batch_size, 'config.train.batch_size')

  def prompts() -> Iterable[str]:
    for table in open_pairs(folder, 'train').tables(['caption']):
      yield from filter(None, table.column('caption').to_pylist())

  texts = clip_data.clip_texts(config)
  data = PairData(
    folder,
    {'train': 'train', 'dev': config.pairs.dev, 'test': config.pairs.test},
    clip_data.open_or_learn_tokenizer(config, texts, workdir, prompts),
    config.clip.image_size,
    config.pairs.labelled_only,
  )
  return PreferenceSession(setup, data)


def pairs_folder(config: ConfigDict) -> epath.Path:
  """Returns the folder of `config.pairs`; generates the pairs of shapes if missing."""
  if config.pairs.dir:
    return paths.find(config.pairs.dir, 'config.pairs.dir')
  from rahf.data.datasets.shapes.pairs import prepare_pairs

  folder = paths.find(config.data.dir, 'config.data.dir')
  return epath.Path(prepare_pairs(folder, **config.pairs.shapes))
