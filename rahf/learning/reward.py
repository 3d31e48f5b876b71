"""Scores as rewards for training image generators.

  reward = rahf.reward('runs/quickstart/export', weights={'overall': 1, 'alignment': 1})
  values, info = reward(images, prompts, metadata)

Images are a torch tensor (NCHW, in [0, 1]) or a NumPy array (NHWC, uint8), prompts a
list or tuple, and values an array that torch.as_tensor accepts. Trainers call it so:
  ddpo-pytorch  reward(images, prompts, metadata), from a thread
  Flow-GRPO     the same; add 'rahf': lambda: reward to the table in `multi_score`
                (flow_grpo/rewards.py)
  verl-omni     (verl's trainers of images) reward.custom_reward_function.path and .name
                of a function that is called by keyword, for one image and its prompt:
                compute_score(data_source, solution_image, ground_truth, extra_info,
                **kwargs) returns {'score': float(...), other names: metrics} with
                reward(solution_image[None], ground_truth)[0][0]
  UniRL         compute_rewards_differentiable(images, prompts, records) of a
                DifferentiableReward returns reward.with_gradient(images, prompts)[0]
  TRL           until 0.24.0 removed them: DDPOTrainer(reward_function=reward),
                AlignPropTrainer(reward_function=reward.with_gradient)

Axis letters: N images, C 3 colours, H W their size, S the model's size, K texts,
L tokens. A CLIP's text is [N L].
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32

from rahf.data.images import inputs
from rahf.errors import InputError
from rahf.inference.open_scorer import load
from rahf.inference.scorer import Scorer, as_list, one_each
from rahf.learning.reward_terms import (
  WORDS,
  check_numbers,
  check_weights,
  map_terms,
  mean_p_misaligned,
  scales_of,
)
from rahf.learning.shared_gpu import open_shared


def reward(
  path: str | os.PathLike,
  *,
  weights: Mapping[str, float] | None = None,
  device: Any = None,
  memory_fraction: float = 0.25,
  batch_size: int = 16,
  dtype: str | None = None,
) -> 'Reward':
  """Opens a model as a reward that can share a GPU with a trainer.

  JAX will not preallocate GPU memory and will use at most `memory_fraction` of it. This
  must be set before JAX starts in this process; afterwards there is only a warning
  (`shared_gpu.open_shared`).

  Args:
    path: as for `rahf.load`.
    weights: of the terms below; the reward is their weighted sum. None: the overall
      score of a RAHF, or the similarity of a CLIP.
      plausibility, alignment, aesthetics, overall: scores, higher is better.
      implausibility_mean, implausibility_peak, misalignment_mean, misalignment_peak:
        mean and maximum of a heatmap at the model's size; higher is worse.
      misaligned_words: mean probability that a word is misaligned, without truncated
        words; 0 if there are no words; higher is worse.
      All these are of a RAHF and in [0, 1], so the reward is between the sum of the
      negative weights and that of the positive ones; higher is better.
      similarity: of a CLIP, its only term: the cosine times the model's scale, from
        -100 to 100 for most; higher is better. PickScore gives 20 to 23 to most images;
        a weight of 1/26 is usual.
    device: 'cpu', 'cuda', 'cuda:1', 'tpu', or a torch.device. None: JAX's first device.
      With 'cpu', JAX will not use a GPU in this process, unless it has already started.
      With one process per GPU, give each its own: 'cuda:0', 'cuda:1' and so on.
    memory_fraction: of a GPU, in (0, 1].
    batch_size, dtype: as for `rahf.load`.

  Raises:
    InputError: as in `rahf.load`; the device does not exist; or a weight has an unknown
      name, is not finite, or rewards a penalty.
  """
  if weights is not None:
    check_numbers(weights)  # Before the model is read, which may take long.
  devices = [open_shared(device, memory_fraction)]
  model = load(path, batch_size=batch_size, dtype=dtype, devices=devices)
  return Reward(model, weights)


class Reward:
  """A weighted sum of a model's scores and penalties; see `reward`.

  Attributes:
    model: a loaded model.
    weights: by term.
    scales: range and direction of each term of the model, with or without a weight.
  """

  def __init__(self, model: Scorer, weights: Mapping[str, float] | None = None):
    """Wraps a model that `rahf.load` opened."""
    self.model = model
    self.scales = scales_of(model.outputs)
    if weights is None:
      weights = {model.outputs.main: 1.0}
    self.weights = check_weights(weights, self.scales)

  @property
  def params(self) -> Any:
    """The model's parameters, for `differentiable`."""
    return self.model.params

  def __call__(
    self, images: Any, prompts: str | Sequence[str], metadata: Any = None
  ) -> tuple[Float32[np.ndarray, 'N'], dict[str, Any]]:
    """Scores a batch of any number of images, of any size.

    Args:
      images: NCHW or NHWC, uint8, or floats in [0, 1], which are rounded to 1/255; from
        PyTorch (any device, bfloat16 too), NumPy or JAX. Or a list of such images, PIL
        images, paths or bytes, which may differ in size.
      prompts: one per image, or one for all.
      metadata: not used.

    Returns:
      The reward of each image, higher is better, and its parts, for dense rewards and
      logs; a CLIP has only scores, truncated and ranges:
        scores: {name: float32[N]}, higher is better.
        penalties: {name: float32[N]}, higher is worse.
        heatmaps: {name: float32[N, S, S]}, in [0, 1], higher is worse, at the model's
          size; implausibility and misalignment.
        keywords: for each image a list of (word, probability of misalignment).
        truncated: bool[N], whether the prompt was too long and lost its end.
        ranges: {name: {'range': [low, high], 'direction': text}}, of each score and
          penalty.

    Raises:
      InputError: pixels are NaN or out of range, the colour axis is ambiguous, or a
        prompt is missing.
    """
    del metadata
    found = self.model.score(_channels_last(images), prompts)
    outputs = self.model.outputs
    info: dict[str, Any] = {
      'scores': {
        name: np.array([one.scores[name] for one in found], np.float32)
        for name in outputs.scores
      },
      'truncated': np.array([one.truncated for one in found], bool),
      'ranges': {name: scale.to_dict() for name, scale in self.scales.items()},
    }
    if outputs.maps:
      size = self.model.description.image_size
      info['heatmaps'] = {
        name: np.array([one.small_maps[name] for one in found]).reshape(-1, size, size)
        for name in outputs.maps
      }
      info['penalties'] = map_terms(info['heatmaps'])
    if outputs.keywords:
      info['keywords'] = [one.keywords for one in found]
      words = np.array([mean_p_misaligned(one) for one in found], np.float32)
      info['penalties'] = info.get('penalties', {}) | {WORDS: words}
    values = self._weigh({**info['scores'], **info.get('penalties', {})})
    return np.asarray(values, np.float32), info

  def encode(self, prompts: str | Sequence[str]) -> Int32[np.ndarray, 'N ...']:
    """Tokenises prompts for `differentiable`; a single string gives one row.

    Raises:
      InputError: there are no prompts, or one is missing.
    """
    if isinstance(prompts, str | None):
      prompts = [prompts]
    prompts = as_list(prompts)
    if not prompts:
      raise InputError('there are no prompts; give one for each image')
    return np.stack([self.model.encode(prompt).text for prompt in prompts])

  def differentiable(
    self, params: Any, pixels: Float[Array, 'N H W C'], text: Int[Array, 'N ...']
  ) -> Float[Array, 'N']:
    """Computes the reward as a pure JAX function, for jit, grad and vmap.

    Pixels are scaled to the model's size as in `__call__` (bilinear, antialiased), but
    not rounded to levels of 1/255, so rewards may differ slightly. Each new shape is
    compiled again.

      text = reward.encode(['a red circle'])
      def total(pixels):
        return reward.differentiable(reward.params, pixels, text).sum()
      gradient = jax.grad(total)(pixels)

    Args:
      params: `reward.params`; an argument, so that jit does not copy them into the
        program.
      pixels: RGB in [0, 1], row 0 at the top; not checked.
      text: from `encode`, one row per image, or one for all.

    Raises:
      InputError: misaligned_words has a weight. Each word's probability depends on the
        discrete marks of the words before it, so there is no gradient.
    """
    if self.weights.get(WORDS):
      raise InputError(
        f'{WORDS} has a weight, but no gradient; use alignment or misalignment_mean'
      )
    return self._weigh({**self.terms(params, pixels, text), WORDS: 0.0})

  def terms(
    self, params: Any, pixels: Float[Array, 'N H W C'], text: Int[Array, 'N ...']
  ) -> dict[str, Float[Array, 'N']]:
    """Returns the differentiable terms by name."""
    text = jnp.broadcast_to(text, (len(pixels), *text.shape[1:]))
    scores, maps = self.model.scores_and_maps(params, pixels, text)
    return {**scores, **map_terms(maps)}

  def with_gradient(
    self, images: Any, prompts: str | Sequence[str], metadata: Any = None
  ) -> tuple[Any, dict[str, Any]]:
    """Returns rewards that PyTorch can differentiate, and an empty dict.

    JAX computes values and gradients together; they pass through host memory. Each
    image size and each of the model's batch sizes is compiled once.

    Args:
      images: a torch tensor, NCHW or NHWC, floats in [0, 1].
      prompts: one for each image, or one for all.
      metadata: not used.

    Raises:
      InputError: as for the call and `differentiable`.
    """
    del metadata
    # A caller with a tensor has already imported PyTorch.
    from rahf.learning import torch_bridge

    evaluate = functools.partial(self._values_and_gradients, prompts=prompts)
    return torch_bridge.apply(evaluate, images), {}

  def _values_and_gradients(
    self, images: Float[np.ndarray, 'N ...'], prompts: str | Sequence[str]
  ) -> tuple[Float[np.ndarray, 'N'], Float[np.ndarray, 'N ...']]:
    pixels = _channels_last(images)
    if pixels.ndim != 4 or not len(pixels):
      raise InputError(
        f'images of shape {list(images.shape)}; give [images, 3, height, width] or '
        '[images, height, width, 3], one image or more'
      )
    inputs.check_floats(pixels)
    text = self.encode(one_each(prompts, len(pixels)))
    values, gradients = [], []
    for start in range(0, len(pixels), self.model.buckets[-1]):
      rows = np.arange(start, min(start + self.model.buckets[-1], len(pixels)))
      filled = rows[self.model.fill(len(rows))]
      found = self._value_and_gradient(self.params, pixels[filled], text[filled])
      value, gradient = (np.asarray(array)[: len(rows)] for array in found)
      values.append(value)
      gradients.append(gradient)
    moved = pixels.shape != images.shape
    gradient = np.concatenate(gradients)
    return np.concatenate(values), np.moveaxis(gradient, -1, 1) if moved else gradient

  @functools.cached_property
  def _value_and_gradient(self) -> Any:
    def total(pixels, params, text):
      values = self.differentiable(params, pixels, text)
      return values.sum(), values

    # Rows are independent, so the gradient of the sum contains that of each row.
    both = jax.value_and_grad(total, has_aux=True)

    def value_and_gradient(params, pixels, text):
      (_, values), gradient = both(pixels, params, text)
      return values, gradient

    return jax.jit(value_and_gradient)

  def _weigh(self, terms: Mapping[str, Any]) -> Any:
    return sum(weight * terms[name] for name, weight in self.weights.items())


def _channels_last(images: Any) -> Any:
  """Returns images with colours in the last axis, and tensors as NumPy arrays."""
  if isinstance(images, list | tuple):
    return [_channels_last(one) for one in images]
  images = inputs.from_torch(images)
  shape = getattr(images, 'shape', ())
  if len(shape) not in (3, 4):
    return images
  first, last = shape[-3] == 3, shape[-1] == 3
  if last and not first:
    return images
  if last or not first:
    raise InputError(
      f'images of shape {list(shape)}: cannot tell which axis has the 3 colours; give '
      '[images, 3, height, width] or [images, height, width, 3]'
    )
  return np.moveaxis(np.asarray(images), -3, -1)
