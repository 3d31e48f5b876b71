"""Every setting: its default, type, range and meaning.

A flag such as --config.train.steps=100 sets `Train.steps`. The model's settings are
defined next to its modules, in `RAHFConfig` and its parts.
"""

import dataclasses
from typing import Annotated

from rahf.config.data_settings import (
  Count,
  Data,
  Factor,
  Limit,
  Pairs,
  Positive,
  Rows,
  Split,
  Text,
)
from rahf.data.schema import MAPS, SCORES
from rahf.fileio.validators import (
  INT32_MAX,
  one_of,
  optional,
  pair,
  pattern,
  real,
  sequence,
  whole,
)
from rahf.models.baselines import BaselineConfig
from rahf.models.clip import CLIPConfig
from rahf.models.muse import MuseConfig, SamplingConfig
from rahf.models.rahf import RAHFConfig
from rahf.models.resnet import ResNetConfig
from rahf.models.sizes import DTYPES, Flag
from rahf.runtime.accelerator import PLATFORMS

# The tasks that train a RAHF.
RAHF_TASKS = ('feedback', 'feedback_pairs', 'captions')
DECODERS = ('greedy', 'beam', 'sequential', 'parallel')
# Valid values of train.keep_best; losses are minimised, metrics maximised.
CRITERIA = (
  '',
  *(f'loss/{name}' for name in ('total', 'heatmap', 'score', 'sequence')),
  *(f'{name}/{value}' for name in SCORES for value in ('plcc', 'srcc')),
  *(f'{name}/cc' for name in MAPS),
  *('keywords/f1', 'keywords_constrained/f1'),
  *('accuracy/ties_half', 'accuracy/ties_dropped'),
  *('captions/exact', 'captions/word_f1'),
)


@dataclasses.dataclass(frozen=True)
class InitialWeights:
  """Pretrained weights to start from: paths, local or gs://; '' for none.

  Attributes:
    vit: weights of a ViT.
    t5: weights of a T5.
    rahf: a whole RAHF, instead of both: an export, or that of the PyTorch RAHF.
    clip, resnet, muse: weights of such a model, for the tasks that have one; of a Muse
      also only the autoencoder. For a Muse, `clip` gives the text encoder.
    clip_gelu: the activation of a CLIP whose files do not state it, 'quick' or 'exact'.
  """

  vit: Text = ''
  t5: Text = ''
  rahf: Text = ''
  clip: Text = ''
  resnet: Text = ''
  muse: Text = ''
  clip_gelu: Annotated[str, one_of(('', 'quick', 'exact'))] = ''


@dataclasses.dataclass(frozen=True)
class Generator:
  """Training of 'generator', the transformer of a Muse.

  Attributes:
    text_dropout: share of the images whose text is replaced by the empty one, which
      guidance needs.
    label_smoothing: share of each label that is spread over all codes.
    lora_rank: rank of the low-rank changes that are trained instead of the transformer
      itself; 0 for none.
    lora_scale: what they are multiplied by.
  """

  text_dropout: Annotated[float, real(0, 1)] = 0.1
  label_smoothing: Annotated[float, real(0, 0.999)] = 0.0
  lora_rank: Count = 0
  lora_scale: Factor = 2.0


@dataclasses.dataclass(frozen=True)
class RewardTuning:
  """Training of 'reward_tuning': a Muse by what a RAHF says of its images.

  Attributes:
    model: directory of the RAHF.
    by: the reward, a score or a weighted sum, such as 'plausibility+0.5*alignment'.
    prompts, eval_prompts: text files or tables of prompts, to train and to evaluate.
    group: images of each prompt in a step, which are compared with one another.
    divergence: weight of the divergence from the Muse at the start.
    dense: how much less of the reward tokens get where the heatmap lies above its mean;
      0 rewards all tokens of an image alike.
    heatmap: the one of 'dense'.
    other_maps: whether each image is given the heatmap of another, as a control.
  """

  model: Text = ''
  by: Text = 'plausibility'
  prompts: Text = ''
  eval_prompts: Text = ''
  group: Annotated[int, whole(2, 1024)] = 8
  divergence: Factor = 0.02
  dense: Factor = 0.0
  heatmap: Annotated[str, one_of(MAPS)] = MAPS[0]
  other_maps: Flag = False


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the losses in their sum (paper section 4.3).

  Attributes:
    preference: of the pairs of 'feedback_pairs'.
  """

  heatmap: Factor = 1.0
  score: Factor = 1.0
  sequence: Factor = 1.0
  preference: Factor = 1.0


@dataclasses.dataclass(frozen=True)
class Optimizer:
  """AdamW and its schedule.

  Attributes:
    learning_rate: after warm-up.
    schedule: 'inverse_sqrt' (RAHF's supplement), or 'linear': logarithmic warm-up,
      then linearly to 0 (PickScore).
    warmup_steps: over which it rises from 0.
    cooldown_steps: of 'inverse_sqrt', the last steps, over which it falls to 0.
    weight_decay: for what `decay` names.
    decay: 'kernels', without norms, biases and embeddings, or 'all'.
    clip_norm: maximum global norm of the gradient.
    b1, b2: decay rates of the moments.
    freeze: regular expressions of parameter paths to freeze, such as '^vit/'.
    rate_factors: pairs of such an expression and a factor on the learning rate of the
      parameters that it matches.
  """

  learning_rate: Factor = 1e-3
  schedule: Annotated[str, one_of(('inverse_sqrt', 'linear'))] = 'inverse_sqrt'
  warmup_steps: Count = 2000
  cooldown_steps: Count = 0
  weight_decay: Factor = 1e-3
  decay: Annotated[str, one_of(('kernels', 'all'))] = 'kernels'
  # Clipping to 0 would leave no gradient.
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
    batch_size: number of images, regardless of the number of texts per image.
    accumulate: micro-batches per step.
    log_every, checkpoint_every: in steps.
    keep_checkpoints: how many of the newest to keep; None for all.
    keep_best: also keep the best checkpoint by this metric of `eval.split`, such as
      'overall/srcc'; '' for none.
    max_skipped: how many steps with a loss or gradient that is not finite to skip
      before the run stops.
    average: decay per step of a moving average of the parameters, such as 0.9999, which
      is evaluated and exported instead of them; 0 for none.
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
    split: evaluated during training.
    final_split: evaluated at the end of training.
  """

  every: Positive = 2000
  batch_size: Rows = 64
  split: Split = 'dev'
  final_split: Split = 'test'


@dataclasses.dataclass(frozen=True)
class Review:
  """Examples shown for each evaluation.

  Attributes:
    examples: number in TensorBoard, evenly spaced in the split.
    worst: number of worst examples of each kind in TensorBoard.
    page: number of samples on the report page.
  """

  examples: Count = 4
  worst: Count = 2
  page: Count = 1000


@dataclasses.dataclass(frozen=True)
class Keywords:
  """How misaligned words are decoded.

  Attributes:
    decoder: 'greedy' or 'beam' (free decoding), or 'sequential' or 'parallel'
      (constrained to the prompt, see `models/constrained.py`). Evaluations report one
      of each: greedy unless this is 'beam', and sequential unless it is 'parallel'.
    beams: number of beams of 'beam'.
    threshold_split: the split on which constrained decoding's threshold is chosen.
  """

  decoder: Annotated[str, one_of(DECODERS)] = 'sequential'
  beams: Annotated[int, whole(1, 1000)] = 4
  threshold_split: Split = 'dev'


@dataclasses.dataclass(frozen=True)
class MeshAxes:
  """Devices along each axis of the mesh; one may be -1, for all remaining devices."""

  data: Limit = -1
  fsdp: Limit = 1
  tensor: Limit = 1


@dataclasses.dataclass(frozen=True)
class Precompile:
  """--mode=precompile: a TPU topology such as 'v5e:2x4'; '' for this machine."""

  topology: Text = ''


@dataclasses.dataclass(frozen=True)
class Export:
  """--mode=export.

  Attributes:
    step: of the checkpoint; -1 for the newest.
    dir: output folder; '' for WORKDIR/export.
    program: also export the inference step as a `jax.export` artifact.
    dtype: for computation; '' for that of training (float32 for config.init.rahf).
  """

  step: Limit = -1
  dir: Text = ''
  program: Flag = False
  dtype: Annotated[str, one_of(('', *DTYPES))] = ''


@dataclasses.dataclass(frozen=True)
class Settings:
  """All settings; the defaults are the paper's sizes and the supplement's recipe.

  Attributes:
    task: what to train, a key of `rahf.tasks.TASKS`.
    seed: of parameters, order, augmentation and dropout.
    platform: 'cpu', 'gpu' or 'tpu', which JAX must have; '' leaves the choice to
      JAX_PLATFORMS and the installed JAX (`runtime/accelerator.py`).
    model: sizes of RAHF; a ResNet has the same image size and dtype, and a CLIP must
      have the same image size.
    clip, resnet, baseline: sizes and choices for the tasks with such a model.
    muse, generator, sampling: sizes of a Muse, of which 'autoencoder' and then
      'generator' train a part; how the latter is trained; how it draws.
    reward: for 'reward_tuning', which trains a Muse further.
    pairs: preference pairs: the data of 'preference', and of 'feedback_pairs' beside
      `data`.
    tokenizer: path of a SentencePiece model, '' for the one next to the data set; for a
      CLIP its vocabulary, '' for the one next to the weights.
  """

  task: Text = 'feedback'
  seed: Annotated[int, whole(0, INT32_MAX - 1)] = 0
  platform: Annotated[str, one_of(('', *PLATFORMS))] = ''
  model: RAHFConfig = RAHFConfig()
  clip: CLIPConfig = CLIPConfig()
  resnet: ResNetConfig = ResNetConfig()
  baseline: BaselineConfig = BaselineConfig()
  muse: MuseConfig = MuseConfig()
  generator: Generator = Generator()
  reward: RewardTuning = RewardTuning()
  sampling: SamplingConfig = SamplingConfig()
  init: InitialWeights = InitialWeights()
  tokenizer: Text = ''
  data: Data = Data()
  pairs: Pairs = Pairs()
  loss: LossWeights = LossWeights()
  optimizer: Optimizer = Optimizer()
  train: Train = Train()
  eval: Eval = Eval()
  review: Review = Review()
  keywords: Keywords = Keywords()
  mesh: MeshAxes = MeshAxes()
  precompile: Precompile = Precompile()
  export: Export = Export()
