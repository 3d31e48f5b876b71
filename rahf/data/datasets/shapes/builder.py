"""Builds Shapes, a generated data set for trying everything without downloads.

Each sample is a plain prompt about a few coloured shapes, an image that contradicts
some of its words and has some damaged regions, and the marks of three simulated
annotators, consolidated like real ones. `annotators` defines how scores follow from
defects; `metric_ceilings` gives the best metrics that the annotators' noise allows.

Shapes captions are images without defects, with captions that say all that they show.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterator
from typing import ClassVar

import sentencepiece
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from rahf.data import schema
from rahf.data.datasets.joining.features import record_features
from rahf.data.datasets.shapes.record import (
  MIN_IMAGE_SIZE,
  make_caption_records,
  make_records,
  make_sample,
  metric_ceilings,
  uid_of,
)
from rahf.data.datasets.shapes.workers import workers
from rahf.data.datasets.shapes.world import WORLDS
from rahf.data.images.codec import MAX_SIDE
from rahf.data.labels import raw
from rahf.data.labels.consolidate import Annotation
from rahf.data.storage import manifest
from rahf.errors import InputError
from rahf.fileio import atomic_write

_CHUNK = 64
_VOCABULARY_SIZE = 288
_TASKS = (
  'implausibility heatmap: misalignment heatmap: plausibility score: '
  'alignment score: aesthetics score: overall score:'
)


@dataclasses.dataclass(eq=False, kw_only=True)
class ShapesConfig(tfds.core.BuilderConfig):
  """Everything that determines the data; the name is derived from it.

  Attributes:
    image_size: height and width of images and maps, in pixels, at least 64.
    train: number of training samples; `dev` and `test` likewise.
    seed: of all samples, not negative.
    world: one of `WORLDS`.
  """

  name: str = dataclasses.field(init=False, default='')
  image_size: int = 64
  train: int = 40_000
  dev: int = 500
  test: int = 1_000
  seed: int = 0
  world: str = 'full'

  def __post_init__(self):
    if self.image_size < MIN_IMAGE_SIZE:
      raise InputError(
        f'image_size {self.image_size} is too small to tell shapes apart; use at '
        f'least {MIN_IMAGE_SIZE}'
      )
    if self.image_size > MAX_SIDE:
      raise InputError(f'image_size {self.image_size} is above the limit of {MAX_SIDE}')
    for name in (*schema.SPLITS, 'seed'):
      if getattr(self, name) < 0:
        raise InputError(f'{name} {getattr(self, name)} must not be negative')
    if self.train + self.dev + self.test == 0:
      raise InputError('train, dev and test are all 0; request at least one sample')
    if self.world not in WORLDS:
      raise InputError(f'world {self.world!r} is unknown; use one of {tuple(WORLDS)}')
    # Folders of the full world are older than its name.
    world = '' if self.world == 'full' else f'-{self.world}'
    sizes = f'{self.train}-{self.dev}-{self.test}'
    self.name = f'{self.image_size}px-{sizes}-seed{self.seed}{world}'


class Shapes(tfds.core.GeneratorBasedBuilder):
  """Generated coloured shapes with simulated annotations, as `schema.Record`."""

  VERSION = tfds.core.Version('1.1.0')
  BUILDER_CONFIGS: ClassVar = [ShapesConfig()]
  make_records: ClassVar = staticmethod(make_records)
  # Nothing is downloaded. TFDS would look for checksums next to the class using
  # importlib_resources, which is not among its declared dependencies.
  url_infos: ClassVar = {}

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(builder=self, features=record_features())

  def metric_ceilings(self, num_samples: int = 1_000) -> dict[str, float]:
    """Returns the best value that a model can expect on the test split, by metric.

    Measured on the first samples; see `record.metric_ceilings`.
    """
    config = self.builder_config
    return metric_ceilings(
      config.seed, num_samples, config.image_size, world=config.world
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    counts = {split: getattr(self.builder_config, split) for split in schema.SPLITS}
    return {s: self._generate_examples(s, n) for s, n in counts.items() if n}

  def _generate_examples(self, split: str, count: int) -> Iterator[tuple[str, dict]]:
    config = self.builder_config
    chunks = [
      (
        config.seed,
        split,
        range(start, min(start + _CHUNK, count)),
        config.image_size,
        config.world,
      )
      for start in range(0, count, _CHUNK)
    ]
    with (
      workers(count, _CHUNK) as run,
      tqdm(total=count, desc=f'{self.name} {split}') as bar,
    ):
      for records in run(self.make_records, chunks):
        for record in records:
          yield record.uid, record._asdict()
        bar.update(len(records))


class ShapesCaptions(Shapes):
  """Generated coloured shapes with captions, as `schema.Record` without labels."""

  VERSION = tfds.core.Version('1.0.0')
  BUILDER_CONFIGS: ClassVar = [ShapesConfig()]
  make_records: ClassVar = staticmethod(make_caption_records)


def prepare_shapes(
  data_dir: str | os.PathLike,
  *,
  image_size: int = 64,
  train: int = 40_000,
  dev: int = 500,
  test: int = 1_000,
  seed: int = 0,
  world: str = 'full',
  captions: bool = False,
) -> pathlib.Path:
  """Generates the data set and its tokenizer unless they exist.

  Args:
    data_dir: TFDS data directory; one subdirectory per set of parameters.
    image_size: height and width in pixels, at least 64.
    train: number of training samples; 0 leaves the split out.
    dev: number of development samples.
    test: number of test samples.
    seed: of all samples.
    world: 'full', or 'small' for small generators (`shapes.world`).
    captions: images without defects and their captions, instead of annotated ones.

  Returns:
    The directory with the shards of all splits, the annotators' raw marks, if any
    (`rahf.data.labels.raw`), and `tokenizer.model`.

  Raises:
    InputError: a number is negative, all counts are 0, the image is too small, or the
      world is unknown.
  """
  config = ShapesConfig(
    image_size=image_size, train=train, dev=dev, test=test, seed=seed, world=world
  )
  if os.path.exists(data_dir) and not os.path.isdir(data_dir):
    raise InputError(f'{data_dir} is a file; give a folder')
  # TFDS warns about unknown configs, calls this a download on stdout, and shows three
  # progress bars.
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      kind = ShapesCaptions if captions else Shapes
      builder = kind(data_dir=os.fspath(data_dir), config=config)
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  except FileExistsError:
    # Another process has made the same data; it appears only once complete.
    pass
  finally:
    logging.set_verbosity(verbosity)
    tfds.enable_progress_bar()
  folder = pathlib.Path(builder.data_path)
  tokenizer = folder / schema.TOKENIZER_FILE
  if not tokenizer.exists():
    atomic_write.write(tokenizer, train_tokenizer(seed))
  for split in () if captions else schema.SPLITS:
    file = raw.path(folder, split)
    # A shared folder may be read-only.
    if getattr(config, split) and not file.exists() and os.access(folder, os.W_OK):
      raw.write(file, _annotations(config, split))
  if not (folder / manifest.NAME).exists() and os.access(folder, os.W_OK):
    manifest.write(folder, manifest.describe_all(folder))
  return folder


def _annotations(
  config: ShapesConfig, split: str
) -> Iterator[tuple[str, list[Annotation]]]:
  """Yields the uid and the annotations of each image."""
  for index in tqdm(range(getattr(config, split)), f'annotations {split}'):
    sample = make_sample(config.seed, split, index, config.world)
    yield uid_of(split, index), sample.annotations


def train_tokenizer(seed: int) -> bytes:
  """Returns a SentencePiece model of the training prompts with T5's conventions.

  Ids are 0 padding, 1 end, 2 unknown. Each word of the generated prompts and of the
  task strings is one piece, as is the mark `_0`; other ASCII text is spelled out. The
  model depends on the seed alone: it always reads the first 2,000 training prompts,
  even if the split is smaller, as rare words would be missing otherwise; and those of
  the full world, which has all words of the small one.
  """
  prompts = [make_sample(seed, 'train', i).prompt.text for i in range(2_000)]
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    # Repeated so that the task words are frequent enough to become pieces.
    sentence_iterator=iter(prompts + [_TASKS] * 200),
    model_writer=model,
    model_type='bpe',
    vocab_size=_VOCABULARY_SIZE,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    user_defined_symbols=['_0'],
    required_chars=''.join(map(chr, range(33, 127))),
    num_threads=1,
    minloglevel=2,
  )
  return model.getvalue()
