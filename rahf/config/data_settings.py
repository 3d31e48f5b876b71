"""Settings of the data, and types that all settings share."""

import dataclasses
from typing import Annotated

from rahf.data.datasets.shapes.world import WORLDS
from rahf.data.schema import PAIR_SPLITS, SCORES, SPLITS
from rahf.fileio.validators import one_of, pair, real, sequence, text, whole
from rahf.models.sizes import Flag

Text = Annotated[str, text]
Count = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Rows = Annotated[int, whole(1, 2**20)]
Length = Annotated[int, whole(1, 2**14)]
Factor = Annotated[float, real(0, 1e6)]
Limit = Annotated[int, whole(-1)]
Split = Annotated[str, one_of(SPLITS)]
World = Annotated[str, one_of(tuple(WORLDS))]
Mixture = Annotated[
  tuple,
  sequence(
    pair(text, real(1e-9, 1e9)),
    "(('richhf18k', 2.0), ('shapes', 1.0)), pairs of a name and a weight above 0",
  ),
]
Names = Annotated[tuple, sequence(text, "('cc12m',)")]


@dataclasses.dataclass(frozen=True)
class Shapes:
  """The generated data sets, 'shapes' and 'shapes_captions'.

  Attributes:
    image_size: in pixels.
    train, dev, test: number of images.
    seed: random seed of the generator.
    world: 'full', or 'small' for what small generators of images can learn
      (`data.datasets.shapes.world`).
  """

  image_size: Annotated[int, whole(64, 8192)] = 64
  train: Count = 10000
  dev: Count = 500
  test: Count = 1000
  seed: Count = 0
  world: World = 'full'


@dataclasses.dataclass(frozen=True)
class Data:
  """The data for training and evaluation.

  Attributes:
    name: a prepared data set below `dir`, or 'shapes' or 'shapes_captions', which are
      generated.
    dir: the output folder of `python -m rahf.data prepare`.
    mixture: pairs of a data set's name and its weight, to train on instead of `name`
      alone. Evaluations always use `name`.
    captions: names of those of them whose texts are captions, which are predicted from
      the image (paper section 4.1); all of them for the task 'captions'.
    caption_prompt: the prompt that asks for a caption.
    text_length: tokens of a prompt including its task string.
    target_length: tokens of the prompt with its marks.
    augment: crop images at random and change their colours.
    min_words, max_words: leave out training prompts with fewer or more words; -1 means
      no limit.
    aligned_only: leave out training prompts that have misaligned words, or whose words
      are not annotated.
    limit, limit_seed: train on only this many examples of each data set but those of
      captions, drawn by this seed; 0 for all. More of them contain those of a lower
      limit.
    max_skipped: how many damaged records a training process may skip; with 0 it stops
      at the first.
    workers: how many processes each training process starts to read and decode; with 0
      it does so itself. Batches are the same.
  """

  name: Text = 'richhf18k'
  dir: Text = 'data'
  mixture: Mixture = ()
  captions: Names = ()
  caption_prompt: Text = ''
  text_length: Length = 128
  target_length: Length = 192
  augment: Flag = True
  min_words: Limit = -1
  max_words: Limit = -1
  aligned_only: Flag = False
  limit: Count = 0
  limit_seed: Count = 0
  max_skipped: Count = 0
  workers: Annotated[int, whole(0, 256)] = 0
  shapes: Shapes = Shapes()


@dataclasses.dataclass(frozen=True)
class ShapesPairs:
  """Generated preference pairs; used only if `pairs.dir` is ''.

  Attributes:
    image_size: in pixels.
    train, validation_unique, test_unique: number of pairs.
    seed: random seed of the generator.
    world: 'full' or 'small'.
  """

  image_size: Annotated[int, whole(64, 8192)] = 64
  train: Positive = 8000
  validation_unique: Positive = 500
  test_unique: Positive = 1000
  seed: Count = 0
  world: World = 'full'


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Preference pairs, for the tasks 'preference' and 'feedback_pairs'.

  Attributes:
    dir: folder of Pick-a-Pic's parquet files, local; '' for generated pairs of shapes.
    dev, test: the splits that 'dev' and 'test' stand for in `eval`.
    labelled_only: evaluate only pairs with has_label; training takes all.
    lanes: a batch's rows come from this many row groups, each of which is in memory;
      more mix better, and are shared by more processes.
    in_batch_negatives: of 'preference': also compare each image with the other prompts
      of a batch, and each prompt with the other images.
    batch_size: of 'feedback_pairs': pairs in each batch, beside the labelled images.
    score_weights: of 'feedback_pairs': the weighted sum of scores that decides.
    scale: of 'feedback_pairs': what that sum is multiplied by before the softmax; with
      10, an advantage of .1 is a probability of 73 %.
  """

  dir: Text = ''
  dev: Annotated[str, one_of(PAIR_SPLITS)] = 'validation_unique'
  test: Annotated[str, one_of(PAIR_SPLITS)] = 'test_unique'
  labelled_only: Flag = True
  lanes: Rows = 8
  in_batch_negatives: Flag = False
  batch_size: Rows = 64
  score_weights: Annotated[
    tuple,
    sequence(pair(one_of(SCORES), real(0, 1e6)), "(('overall', 1.0),)", 1),
  ] = (('overall', 1.0),)
  scale: Annotated[float, real(1e-6, 1e6)] = 10.0
  shapes: ShapesPairs = ShapesPairs()
