"""The baseline task: ResNet-50 and CLIP in RAHF's place (paper, tables 1 to 3).

Data, losses, evaluation and reports are those of the feedback task. What a baseline
does not predict has neither loss nor metric.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import linen as nn
from jaxtyping import Array
from ml_collections import ConfigDict

from rahf.data.images import clip_image
from rahf.data.schema import MAPS, SCORES, Batch
from rahf.errors import InputError
from rahf.models import clip_maps, resnet
from rahf.models.baselines import (
  KINDS,
  BaselineConfig,
  ClipAlone,
  ClipScores,
  Kind,
  ResNetMaps,
  ResNetScores,
  WordRelevance,
)
from rahf.models.clip import CLIP
from rahf.models.rahf import Outputs
from rahf.models.resnet import ResNetConfig
from rahf.runtime import sharding
from rahf.tasks import clip_data
from rahf.training import losses
from rahf.training.batch_spec import batch_shapes
from rahf.training.eval_step import EvalResult
from rahf.training.losses import LabelSums, Losses
from rahf.training.setup import Setup
from rahf.training.task import Session, Variables

# Before the prompt, for words (CLIP4DM).
WORDS_PREFIX = 'A photo depicts '


@dataclasses.dataclass(frozen=True)
class BaselineTask:
  """A baseline and its loss; a `training.task.Task`."""

  config: ConfigDict
  model: nn.Module

  @classmethod
  def of(cls, config: ConfigDict) -> 'BaselineTask':
    options = BaselineConfig(**config.baseline.to_dict())
    if KINDS[options.kind].weights == 'clip':
      clip_data.check_sizes(config)
      clip = clip_data.make_clip_config(config)
      if options.kind == 'clip_scores':
        return cls(config, ClipScores(clip, options, jnp.dtype(clip.dtype)))
      return cls(config, ClipAlone(clip))
    sizes = ResNetConfig(**config.resnet.to_dict())
    module = ResNetScores if options.kind == 'resnet_scores' else ResNetMaps
    _check_sizes(config, sizes)
    return cls(config, module(sizes, options, jnp.dtype(config.model.dtype)))

  @property
  def kind(self) -> Kind:
    kind = KINDS[self.config.baseline.kind]
    if self.config.baseline.kind == 'clip_zero_shot':
      return kind._replace(scores=tuple(self.config.baseline.scores))
    return kind

  @property
  def trains(self) -> bool:
    return self.kind.trains

  @property
  def title(self) -> str:
    return f'{self.config.baseline.kind}, {self.config.model.image_size} px'

  @property
  def dtype(self) -> str:
    settings = self.config.clip if self.kind.weights == 'clip' else self.config.model
    return settings.dtype

  def init(self, key: jax.Array) -> Variables:
    size = self.config.model.image_size
    image = jnp.zeros((1, size, size, 3))
    end = jnp.full((1, 1), self.config.clip.vocab_size - 1)
    return self.model.init(key, image, end, train=False)

  def batch_shapes(
    self,
    rows: int,
    sharding: jax.sharding.Sharding | None = None,
    *,
    train: bool = False,
  ) -> Batch:
    del train
    return batch_shapes(self.config, rows, sharding)

  def count_labels(self, batch: Batch) -> LabelSums:
    return losses.count_labels(self._mask(batch))

  def loss(
    self, variables: Variables, batch: Batch, counts: LabelSums, key: jax.Array
  ) -> tuple[Losses, Variables]:
    del key  # There is no dropout.
    changing = [name for name in variables if name != 'params']
    outputs, changed = self.model.apply(
      variables, *self._inputs(batch), train=True, mutable=changing
    )
    errors = losses.sum_errors(outputs, self._mask(batch))
    return losses.weighted_losses(errors, counts, self.config.loss), changed

  def make_eval_step(
    self, gather: Callable[[Any], Any]
  ) -> Callable[[Variables, Batch], EvalResult]:
    def eval_step(variables: Variables, batch: Batch) -> EvalResult:
      variables = {**variables, 'params': gather(variables['params'])}
      with nn.logical_axis_rules(sharding.LOGICAL_AXIS_RULES):
        found = self.predict(variables, batch)
      outputs = Outputs() if isinstance(found, WordRelevance) else found
      batch = self._mask(batch)
      return EvalResult(
        batch.index,
        batch.truncated & (self.kind.weights == 'clip'),
        found,
        losses.sum_errors(outputs, batch),
        losses.count_labels(batch),
      )

    return eval_step

  def predict(self, variables: Variables, batch: Batch) -> Outputs | WordRelevance:
    """Returns the predictions; what a baseline does not predict is None or 0."""
    image, text = self._inputs(batch)
    kind = self.config.baseline.kind
    if kind not in ('clip_gradient', 'clip_words'):
      return self.model.apply(variables, image, text, train=False)
    clip = CLIP(self.model.clip_config), variables['params']['clip']
    if kind == 'clip_words':
      return WordRelevance(clip_maps.word_relevance(*clip, image, text))
    gradient = self.config.baseline.gradient
    heat = clip_maps.gradient_map(gradient, *clip, image, text)
    maps = [heat if n in self.kind.maps else jnp.zeros_like(heat) for n in MAPS]
    return Outputs(maps=jnp.stack(maps, 1))

  def open(self, setup: Setup, workdir: epath.Path) -> Session:
    del workdir
    # Imported late: loading data needs TensorFlow, the model does not.
    from rahf.tasks.baseline_session import BaselineSession
    from rahf.tasks.feedback_data import open_data

    tokenizer = None
    if self.kind.weights == 'clip':
      prefix = WORDS_PREFIX if self.kind.words else ''
      tokenizer = clip_data.open_tokenizer(
        self.config, clip_data.clip_texts(self.config), prefix
      )
    return BaselineSession(setup, open_data(self.config, tokenizer))

  def _inputs(self, batch: Batch) -> tuple[Array, Array]:
    """Returns images normalised as for the pretrained weights, and the prompts."""
    means = clip_image if self.kind.weights == 'clip' else resnet
    pixels = (batch.image + 1) / 2
    return (pixels - means.MEAN) / means.STD, batch.text[:, -1]

  def _mask(self, batch: Batch) -> Batch:
    """Masks all labels that the baseline is not trained on."""
    maps, scores = (
      jnp.array([name in named and self.trains for name in names])
      for names, named in ((MAPS, self.kind.maps), (SCORES, self.kind.scores))
    )
    return batch._replace(
      map_mask=batch.map_mask & maps,
      score_mask=batch.score_mask & scores,
      keyword_mask=jnp.zeros_like(batch.keyword_mask),
    )


def _check_sizes(config: ConfigDict, sizes: ResNetConfig) -> None:
  deconvs, side = config.baseline.deconvs, config.model.image_size
  if config.baseline.kind == 'resnet_maps' and len(deconvs) > sizes.halvings:
    raise InputError(
      f'config.baseline.deconvs has {len(deconvs)} widths, which makes maps larger '
      f'than the image; use at most {sizes.halvings}'
    )
  if side % 2**sizes.halvings:
    raise InputError(
      f'config.model.image_size = {side} is not a multiple of {2**sizes.halvings}, by '
      'which a ResNet divides it'
    )
