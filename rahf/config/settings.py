"""Every setting: its default, its type and range, and what it does.

A flag such as --config.train.steps=100 changes `Train.steps`. The settings of the model
stand beside its modules, in `RAHFConfig` and what that is made of.
"""

import dataclasses
from typing import Annotated

from rahf.data.schema import MAPS, SCORES, SPLITS
from rahf.fileio.validators import (
  INT32_MAX,
  one_of,
  optional,
  pair,
  pattern,
  real,
  sequence,
  text,
  truth,
  whole,
)
from rahf.models.rahf import DTYPES, RAHFConfig
from rahf.runtime.accelerator import PLATFORMS

DECODERS = ('greedy', 'beam', 'sequential', 'parallel')
# What train.keep_best may name; the lowest loss is the best.
CRITERIA = (
  '',
  *(f'loss/{name}' for name in ('total', 'heatmap', 'score', 'sequence')),
  *(f'{name}/{value}' for name in SCORES for value in ('plcc', 'srcc')),
  *(f'{name}/cc' for name in MAPS),
  *('keywords/f1', 'keywords_constrained/f1'),
)

Text = Annotated[str, text]
Flag = Annotated[bool, truth]
Count = Annotated[int, whole(0)]
Positive = Annotated[int, whole(1)]
Rows = Annotated[int, whole(1, 2**20)]
Length = Annotated[int, whole(1, 2**14)]
Factor = Annotated[float, real(0, 1e6)]
Limit = Annotated[int, whole(-1)]
Split = Annotated[str, one_of(SPLITS)]
Mixture = Annotated[
  tuple,
  sequence(
    pair(text, real(1e-9, 1e9)),
    "(('richhf18k', 2.0), ('shapes', 1.0)), pairs of a name and a weight above 0",
  ),
]


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Weights of other projects to start from; paths, local or gs://, '' for none.

  Attributes:
    vit: a ViT.
    t5: a T5.
    rahf: a whole RAHF, instead of both.
  """

  vit: Text = ''
  t5: Text = ''
  rahf: Text = ''


@dataclasses.dataclass(frozen=True)
class Shapes:
  """The generated data set; read only where `data.name` is 'shapes'.

  Attributes:
    image_size: in pixels.
    train, dev, test: how many images.
    seed: of all that is drawn.
  """

  image_size: Annotated[int, whole(64, 8192)] = 64
  train: Count = 10000
  dev: Count = 500
  test: Count = 1000
  seed: Count = 0


@dataclasses.dataclass(frozen=True)
class Data:
  """What is trained on and evaluated.

  Attributes:
    name: a prepared data set below `dir`, or 'shapes', which is generated.
    dir: where `python -m rahf.data prepare` wrote it.
    mixture: what is trained on instead of `name` alone: pairs of a name and a weight.
      Evaluations are always of `name`.
    text_length: tokens of a prompt, and of its task string.
    target_length: tokens of the prompt with its marks.
    augment: crop images at random and change their colours.
    min_words, max_words: training prompts with fewer or more words are left out; -1 is
      no limit.
    max_skipped: damaged records that a process may pass over in training since it
      started; with 0 it stops at the first.
  """

  name: Text = 'richhf18k'
  dir: Text = 'data'
  mixture: Mixture = ()
  text_length: Length = 128
  target_length: Length = 192
  augment: Flag = True
  min_words: Limit = -1
  max_words: Limit = -1
  max_skipped: Count = 0
  shapes: Shapes = Shapes()


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the losses in their sum (paper section 4.3)."""

  heatmap: Factor = 1.0
  score: Factor = 1.0
  sequence: Factor = 1.0


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW and its schedule.

  Attributes:
    learning_rate: after the warm-up.
    warmup_steps: in which it rises from 0.
    cooldown_steps: the last steps, in which it falls to 0.
    weight_decay: of kernels; norms, biases and embeddings are not decayed.
    clip_norm: of the whole gradient.
    b1, b2: decay of the moments.
    freeze: regular expressions over parameter paths, such as '^vit/'.
    rate_factors: pairs of such an expression, and a factor on the rate of what it
      matches.
  """

  learning_rate: Factor = 1e-3
  warmup_steps: Count = 2000
  cooldown_steps: Count = 0
  weight_decay: Factor = 1e-3
  # No gradient would be left of one that is clipped to 0.
  clip_norm: Annotated[float, real(1e-9)] = 1.0
  b1: Annotated[float, real(0, 0.999999)] = 0.9
  b2: Annotated[float, real(0, 0.999999)] = 0.999
  freeze: Annotated[tuple, sequence(pattern, "('^vit/',)")] = ()
  rate_factors: Annotated[
    tuple, sequence(pair(pattern, real(0, 1e6)), "(('^vit/', 0.1),)")
  ] = ()


@dataclasses.dataclass(frozen=True)
class Train:
  """The training loop.

  Attributes:
    batch_size: images, whatever the number of texts each is read with.
    accumulate: micro-batches per step.
    log_every, checkpoint_every: in steps.
    keep_checkpoints: the newest so many, None for all.
    keep_best: the metric of `eval.split`, such as 'overall/srcc', by which the best
      checkpoint is kept too; '' for none.
    max_skipped: steps whose loss or gradient is not finite that are left out, their
      batches unused; one more ends the run.
    average: decay per step of a moving average of the parameters, such as 0.9999, which
      is evaluated and exported in their place; 0 for none.
  """

  steps: Positive = 20000
  batch_size: Rows = 256
  accumulate: Rows = 1
  log_every: Positive = 50
  checkpoint_every: Positive = 1000
  keep_checkpoints: Annotated[int | None, optional(whole(1))] = 3
  keep_best: Annotated[str, one_of(CRITERIA)] = ''
  max_skipped: Count = 0
  average: Annotated[float, real(0, 0.999999)] = 0.0


@dataclasses.dataclass(frozen=True)
class Eval:
  """Evaluation.

  Attributes:
    every: in steps.
    split: evaluated while training.
    final_split: evaluated once more when training is done.
  """

  every: Positive = 2000
  batch_size: Rows = 64
  split: Split = 'dev'
  final_split: Split = 'test'


@dataclasses.dataclass(frozen=True)
class Review:
  """What is drawn of each evaluation.

  Attributes:
    examples: for TensorBoard, at even distances in the split.
    worst: the worst of each kind, for TensorBoard.
    page: samples that the report page lists.
  """

  examples: Count = 4
  worst: Count = 2
  page: Count = 1000


@dataclasses.dataclass(frozen=True)
class Keywords:
  """How misaligned words are read from the decoder.

  Attributes:
    decoder: 'greedy' or 'beam', or along the prompt, 'sequential' or 'parallel'
      (`models/constrained.py`). Evaluations report free and constrained decoding side
      by side: greedy unless this is 'beam', sequential unless it is 'parallel'.
    threshold_split: where the threshold of constrained decoding is chosen.
  """

  decoder: Annotated[str, one_of(DECODERS)] = 'sequential'
  beams: Annotated[int, whole(1, 1000)] = 4
  threshold_split: Split = 'dev'


@dataclasses.dataclass(frozen=True)
class MeshAxes:
  """Devices along each axis of the mesh; at most one is -1, the rest."""

  data: Limit = -1
  fsdp: Limit = 1
  tensor: Limit = 1


@dataclasses.dataclass(frozen=True)
class Precompile:
  """--mode=precompile: a TPU topology such as 'v5e:2x4'; '' is this machine."""

  topology: Text = ''


@dataclasses.dataclass(frozen=True)
class Export:
  """--mode=export.

  Attributes:
    step: which checkpoint, -1 for the newest.
    dir: where to, '' for DIR/export.
    program: whether to add the inference step as a `jax.export` artifact.
    dtype: to compute in, '' for that of training (float32 for config.init.rahf).
  """

  step: Limit = -1
  dir: Text = ''
  program: Flag = False
  dtype: Annotated[str, one_of(('', *DTYPES))] = ''


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings; the defaults are the paper's sizes and the supplement's recipe.

  Attributes:
    task: what is trained, a key of `rahf.tasks.TASKS`.
    seed: of parameters, order, augmentation and dropout.
    platform: 'cpu', 'gpu' or 'tpu'; it is an error if JAX has no such device. '' leaves
      the choice to JAX_PLATFORMS and to what JAX was installed for
      (`runtime/accelerator.py`).
    tokenizer: a SentencePiece model; '' is the one beside the data set.
  """

  task: Text = 'feedback'
  seed: Annotated[int, whole(0, INT32_MAX - 1)] = 0
  platform: Annotated[str, one_of(('', *PLATFORMS))] = ''
  model: RAHFConfig = RAHFConfig()
  init: InitialWeights = InitialWeights()
  tokenizer: Text = ''
  data: Data = Data()
  loss: LossWeights = LossWeights()
  optimizer: Optimizer = Optimizer()
  train: Train = Train()
  eval: Eval = Eval()
  review: Review = Review()
  keywords: Keywords = Keywords()
  mesh: MeshAxes = MeshAxes()
  precompile: Precompile = Precompile()
  export: Export = Export()
