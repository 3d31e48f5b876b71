"""Universal guidance of latent diffusion by a score (Bansal et al., 2023).

At every step, the predicted noise tells what the image will be; the gradient of that
image's score with respect to the latents, through decoder and U-Net, changes the noise
(forward guidance). More gradient steps can be taken on the predicted clean latents
alone (backward guidance), and a step can be repeated with new noise (recurrence).

For models of few steps, the noise that the image starts from can be optimised instead,
through all steps (as ReNO does; Eyring et al., 2024).

Imports PyTorch and diffusers. Axis letters: B batch, C h w latents, H W image size.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import diffusers
import numpy as np
import torch
from jaxtyping import UInt8

from rahf.errors import InputError
from rahf.inference.image_generator import Request, check_request
from rahf.learning.diffusers_bridge import DiffusersGenerator, random_generator
from rahf.learning.reward import Reward
from rahf.learning.reward_terms import WORDS

_EPSILON = 1e-12


class GuidanceOptions(NamedTuple):
  """How a score guides, beside its strength.

  Attributes:
    backward: gradient steps on the predicted clean latents.
    recurrence: how often each step is done.
    start: gradient steps on the starting noise, instead of guidance.
  """

  backward: int = 0
  recurrence: int = 1
  start: int = 0


PLAIN = GuidanceOptions()


class _Step(NamedTuple):
  """A step of the sampler.

  Attributes:
    time: its time step.
    signal, noise: what clean latents and noise are multiplied by in the latents.
    keep: the root of the share of the signal that is left of the step after.
  """

  time: torch.Tensor
  signal: float
  noise: float
  keep: float


class GuidedDiffusion:
  """A Stable Diffusion of diffusers that a reward guides; samples as DDIM does.

  Attributes:
    reward: its weighted sum is the score.
    batch_size: images that are drawn together.
    options: see `GuidanceOptions`.
  """

  def __init__(
    self,
    generator: DiffusersGenerator,
    reward: Reward,
    options: GuidanceOptions = PLAIN,
  ):
    """Wraps a pipeline.

    Raises:
      InputError: the pipeline is not one of Stable Diffusion 1 or 2, or a term of the
        reward has no gradient.
    """
    pipeline = generator.pipeline
    if not isinstance(pipeline, diffusers.StableDiffusionPipeline):
      raise InputError(
        f'{type(pipeline).__name__} cannot be guided; give a StableDiffusionPipeline, '
        'or a Muse'
      )
    if reward.weights.get(WORDS):
      raise InputError(f'{WORDS} has no gradient and cannot guide; use alignment')
    self._pipeline, self._settings = pipeline, generator.settings
    self._scheduler = diffusers.DDIMScheduler.from_config(
      pipeline.scheduler.config, clip_sample=False
    )
    self.reward, self.options = reward, options
    self.batch_size = generator.batch_size

  def draw(
    self, requests: Sequence[Request], strength: float
  ) -> Iterator[UInt8[np.ndarray, 'H W 3']]:
    """Yields the image of each request, in order.

    Args:
      strength: what the gradient, divided by its root mean square, is multiplied by
        before it changes the noise, which has a root mean square of 1.

    Raises:
      InputError: a prompt is missing, or a seed is out of range.
    """
    for request in requests:
      check_request(request)
    for start in range(0, len(requests), self.batch_size):
      part = requests[start : start + self.batch_size]
      filled = [part[row] for row in np.resize(np.arange(len(part)), self.batch_size)]
      yield from self._draw_batch(filled, strength)[: len(part)]

  def _draw_batch(
    self, requests: Sequence[Request], strength: float
  ) -> UInt8[np.ndarray, 'B H W 3']:
    randoms = [random_generator(one.seed, one.number) for one in requests]
    prompts = [one.prompt for one in requests]
    text, scale = self._encode(requests)
    latents = self._start(randoms)
    if self.options.start:
      latents = self._optimised(latents, text, scale, prompts, strength)
      strength = 0.0
    for step in self._steps():
      for repeat in reversed(range(self.options.recurrence)):
        predict = _Predict(self._pipeline.unet, self._scheduler, step, text, scale)
        noise = self._guide(latents, step, predict, prompts, strength)
        with torch.no_grad():
          new = self._scheduler.step(
            predict.target(latents, noise), step.time, latents
          ).prev_sample
          if repeat:  # Back to the noise of before.
            fresh = torch.stack([_randn(latents[0], one) for one in randoms])
            new = step.keep * new + (1 - step.keep**2) ** 0.5 * fresh
        latents = new
    with torch.no_grad():
      images = self._decode(latents)
    return np.round(255 * images.permute(0, 2, 3, 1).float().cpu().numpy()).astype(
      np.uint8
    )

  def _optimised(
    self,
    latents: torch.Tensor,
    text: torch.Tensor,
    scale: float,
    prompts: Sequence[str],
    strength: float,
  ) -> torch.Tensor:
    """Returns starting noise of a higher score, of the same length as before."""
    length = _length(latents)
    for _ in range(self.options.start if strength else 0):
      with torch.enable_grad():
        start = latents.detach().requires_grad_()
        end = start
        for step in self._steps():
          predict = _Predict(self._pipeline.unet, self._scheduler, step, text, scale)
          target = predict.target(end, predict.noise(end))
          end = self._scheduler.step(target, step.time, end).prev_sample
        moved = start.detach() + strength * self._gradient(end, start, prompts)
      latents = moved * length / _length(moved)
    return latents

  def _guide(
    self,
    latents: torch.Tensor,
    step: _Step,
    predict: '_Predict',
    prompts: Sequence[str],
    strength: float,
  ) -> torch.Tensor:
    """Returns the noise that the score has changed."""
    if not strength:
      with torch.no_grad():
        return predict.noise(latents)
    with torch.enable_grad():
      latents = latents.detach().requires_grad_()
      noise = predict.noise(latents)
      clean = (latents - step.noise * noise) / step.signal
      gradient = self._gradient(clean, latents, prompts)
    noise = noise.detach() - strength * step.noise * gradient
    clean = (latents.detach() - step.noise * noise) / step.signal
    change = torch.zeros_like(clean)
    for _ in range(self.options.backward):
      with torch.enable_grad():
        moved = (clean + change).requires_grad_()
        change = change + strength * self._gradient(moved, moved, prompts)
    return noise - step.signal / step.noise * change

  def _gradient(
    self, clean: torch.Tensor, inputs: torch.Tensor, prompts: Sequence[str]
  ) -> torch.Tensor:
    """Returns the score's gradient, with a root mean square of 1 for each image."""
    image = self._decode(clean)
    values, _ = self.reward.with_gradient(image, list(prompts))
    (gradient,) = torch.autograd.grad(values.sum(), inputs)
    size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
    return gradient / (size + _EPSILON)

  def _decode(self, latents: torch.Tensor) -> torch.Tensor:
    """Returns images in [0, 1]; the gradient passes where they were clipped."""
    vae = self._pipeline.vae
    image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0] / 2
    image = image + 0.5
    return image + (image.clamp(0, 1) - image).detach()

  @torch.no_grad()
  def _encode(self, requests: Sequence[Request]) -> tuple[torch.Tensor, float]:
    """Returns the texts to lead away from and those of the prompts, and how far."""
    scale = float(self._settings.get('guidance_scale', 7.5))
    found, away = self._pipeline.encode_prompt(
      [one.prompt for one in requests],
      self._pipeline.device,
      1,
      scale > 1,
      [one.negative for one in requests],
    )
    return (torch.cat([away, found]) if scale > 1 else found), scale

  def _start(self, randoms: Sequence[torch.Generator]) -> torch.Tensor:
    pipeline = self._pipeline
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return pipeline.prepare_latents(
      len(randoms),
      pipeline.unet.config.in_channels,
      self._settings.get('height', side),
      self._settings.get('width', side),
      pipeline.dtype,
      pipeline.device,
      list(randoms),
    )

  def _steps(self) -> Iterator[_Step]:
    """Yields the steps of the sampler."""
    scheduler = self._scheduler
    scheduler.set_timesteps(self._settings.get('num_inference_steps', 50))
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    for time in scheduler.timesteps:
      signal = float(scheduler.alphas_cumprod[time])
      after = int(time) - stride
      left = (
        scheduler.alphas_cumprod[after]
        if after >= 0
        else (scheduler.final_alpha_cumprod)
      )
      keep = (signal / float(left)) ** 0.5
      yield _Step(time, signal**0.5, (1 - signal) ** 0.5, keep)


class _Predict(NamedTuple):
  """The U-Net at a step, with the texts."""

  unet: torch.nn.Module
  scheduler: diffusers.DDIMScheduler
  step: _Step
  text: torch.Tensor
  scale: float

  def noise(self, latents: torch.Tensor) -> torch.Tensor:
    """Returns the noise that the U-Net finds in latents."""
    twice = self.scale > 1
    inputs = torch.cat([latents, latents]) if twice else latents
    found = self.unet(
      inputs, self.step.time, encoder_hidden_states=self.text, return_dict=False
    )[0]
    if twice:
      away, towards = found.chunk(2)
      found = away + self.scale * (towards - away)
    if self._is_velocity:
      return self.step.signal * found + self.step.noise * latents
    return found

  def target(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Returns what the U-Net would have to predict for this noise."""
    if not self._is_velocity:
      return noise
    clean = (latents - self.step.noise * noise) / self.step.signal
    return self.step.signal * noise - self.step.noise * clean

  @property
  def _is_velocity(self) -> bool:
    return self.scheduler.config.prediction_type == 'v_prediction'


def _length(latents: torch.Tensor) -> torch.Tensor:
  return latents.square().sum((1, 2, 3), keepdim=True).sqrt()


def _randn(like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
  noise = torch.randn(like.shape, generator=random, dtype=like.dtype)
  return noise.to(like.device)
