"""Compares the speed of CLIP and ResNet-50 with transformers in PyTorch.

  python benchmarks/public_models.py [--batch=16] [--repeats=7] [--torch_compile]

Random weights at the published sizes, float32, the same inputs on the same cores, in
turn. Outputs are compared too. The CLIP gradient is the baseline's map: the cosine of
image and text, backwards to the pixels; PyTorch computes the gradients of all
parameters along with it unless one says otherwise, so that both are timed. A training
step of the ResNet is forward and backward, without optimizer. Needs the extra `parity`.
"""

import copy
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import machine
import numpy as np
import torch
import transformers
from absl import app, flags
from flax import linen as nn

from rahf.drawing.markdown import markdown_table
from rahf.models import clip_maps, resnet
from rahf.models.clip import CLIP, SIZES, init_params
from rahf.models.resnet import ResNet, ResNetConfig
from rahf.pretrained.clip_export import describe, to_huggingface

_BATCH = flags.DEFINE_integer('batch', 16, 'Images and texts.')
_REPEATS = flags.DEFINE_integer('repeats', 7, 'Turns of each.')
_COMPILE = flags.DEFINE_boolean('torch_compile', False, 'Use torch.compile.')

Pair = tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]


def main(argv: list[str]) -> None:
  """Prints a table."""
  del argv
  print(f'{machine.processor()}; {machine.accelerator()}; PyTorch {torch.__version__}')
  rows = []
  pairs = {**clip_pairs(), **resnet_pairs(), **resnet_training()}
  for name, (ours, theirs) in pairs.items():
    one, other = ours(), theirs()
    difference = np.abs(one - other).max() / np.abs(other).max()
    seconds = [], []
    for _ in range(_REPEATS.value):
      for function, times in zip((ours, theirs), seconds, strict=True):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    medians = [*map(statistics.median, seconds)]
    ratios = [b / a for a, b in zip(*seconds, strict=True)]
    rows.append(
      [
        name,
        *(f'{s:.3f}' for s in medians),
        f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})',
        f'{difference:.1e}',
      ]
    )
  header = ('', 'ours, s', 'PyTorch, s', 'times as fast', 'difference')
  print(markdown_table(header, rows))


def clip_pairs() -> dict[str, Pair]:
  """Returns features and gradient of CLIP B/32, ours and theirs."""
  config, batch = SIZES['B/32'], _BATCH.value
  params = nn.unbox(init_params(config, jax.random.key(0)))
  theirs = transformers.CLIPModel(
    transformers.CLIPConfig.from_dict(describe(config))
  ).eval()
  arrays = to_huggingface(jax.tree.map(np.asarray, params))
  theirs.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()}, strict=False)
  random = np.random.default_rng(0)
  image = random.standard_normal((batch, 224, 224, 3), np.float32)
  text = random.integers(1, 49000, (batch, 77), np.int32)
  text[:, -1] = config.vocab_size - 1
  model = CLIP(config)
  on_device = jnp.asarray(image), jnp.asarray(text)
  pixels = torch.tensor(image.transpose(0, 3, 1, 2).copy())
  tokens = torch.tensor(text, dtype=torch.long)

  def ours(method, x) -> Callable[[], np.ndarray]:
    step = jax.jit(lambda params, x: model.apply({'params': params}, x, method=method))
    return lambda: np.asarray(step(params, x))

  gradient = jax.jit(
    lambda params, image, text: clip_maps.gradient_map(
      'input_gradient', model, params, image, text
    )
  )
  image_features = compiled(lambda: features(theirs.get_image_features(pixels)))
  text_features = compiled(lambda: features(theirs.get_text_features(tokens)))

  def their_gradient(parameters_too: bool) -> np.ndarray:
    theirs.requires_grad_(parameters_too).zero_grad()
    x = pixels.clone().requires_grad_()
    with torch.no_grad():
      texts = features(theirs.get_text_features(tokens))
    images = features(theirs.get_image_features(x))
    torch.nn.functional.cosine_similarity(images, texts).sum().backward()
    heat = x.grad.abs().amax(1)
    low, high = heat.amin((1, 2), True), heat.amax((1, 2), True)
    return ((heat - low) / (high - low)).numpy()

  def our_gradient() -> np.ndarray:
    return np.asarray(gradient(params, *on_device))

  return {
    'CLIP B/32, image features': (
      ours(CLIP.image_features, on_device[0]),
      without_gradient(image_features),
    ),
    'CLIP B/32, text features': (
      ours(CLIP.text_features, on_device[1]),
      without_gradient(text_features),
    ),
    'CLIP B/32, gradient map': (our_gradient, lambda: their_gradient(False)),
    "CLIP B/32, gradient map, PyTorch with its parameters' gradients": (
      our_gradient,
      lambda: their_gradient(True),
    ),
  }


def make_resnets():
  """Returns a ResNet-50, its variables, theirs with the same, and images for both."""
  config = ResNetConfig()
  variables = nn.unbox(resnet.init_variables(config, jax.random.key(0)))
  theirs = transformers.ResNetModel(transformers.ResNetConfig()).eval()
  copy_resnet(variables, theirs)
  shape = _BATCH.value, 224, 224, 3
  image = np.random.default_rng(0).standard_normal(shape, np.float32)
  pixels = torch.tensor(image.transpose(0, 3, 1, 2).copy())
  model = ResNet(config, jnp.dtype('float32'))
  return model, variables, theirs, jnp.asarray(image), pixels


def resnet_pairs() -> dict[str, Pair]:
  """Returns the last map of a ResNet-50, ours and theirs, of the same weights."""
  model, variables, theirs, on_device, pixels = make_resnets()
  step = jax.jit(lambda variables, x: model.apply(variables, x, train=False))

  def pair(**layout) -> Pair:
    x, network = pixels.to(**layout), copy.deepcopy(theirs).to(**layout)
    forward = compiled(lambda: network(x).last_hidden_state.permute(0, 2, 3, 1))
    return lambda: np.asarray(step(variables, on_device)), without_gradient(forward)

  return {
    'ResNet-50, last map': pair(),
    'ResNet-50, last map, PyTorch with channels last': pair(
      memory_format=torch.channels_last
    ),
  }


def resnet_training() -> dict[str, Pair]:
  """Returns the gradient of the first kernel in a training step, ours and theirs."""
  model, variables, theirs, on_device, pixels = make_resnets()

  @jax.jit
  def step(params, statistics, x):
    def loss(params):
      variables = {'params': params, 'batch_stats': statistics}
      found, changed = model.apply(variables, x, train=True, mutable=['batch_stats'])
      return jnp.mean(jnp.square(found)), changed

    return jax.grad(loss, has_aux=True)(params)

  def our_step() -> np.ndarray:
    grads, _ = step(variables['params'], variables['batch_stats'], on_device)
    jax.block_until_ready(grads)
    return np.asarray(grads['conv1']['kernel'])

  def pair(**layout) -> Pair:
    x, network = pixels.to(**layout), copy.deepcopy(theirs).to(**layout).train()

    def their_step() -> np.ndarray:
      network.zero_grad()
      network(x).last_hidden_state.square().mean().backward()
      first = network.embedder.embedder.convolution.weight.grad
      return first.permute(2, 3, 1, 0).numpy()

    return our_step, compiled(their_step)

  return {
    'ResNet-50, training step': pair(),
    'ResNet-50, training step, PyTorch with channels last': pair(
      memory_format=torch.channels_last
    ),
  }


def copy_resnet(variables, theirs: transformers.ResNetModel) -> None:
  """Gives both the same convolutions; norms are fresh on both sides."""
  kernels = {}
  for path, array in jax.tree_util.tree_leaves_with_path(variables['params']):
    if path[-1].key == 'kernel':
      kernels['/'.join(part.key for part in path[:-1])] = np.asarray(array)
  named = dict(theirs.named_parameters())
  named['embedder.embedder.convolution.weight'].data = torched(kernels.pop('conv1'))
  for path, kernel in kernels.items():
    stage, layer = path.split('/')
    number, block = stage.removeprefix('stage').split('_')
    if layer == 'downsample_conv':
      inside = 'shortcut'
    else:
      inside = f'layer.{int(layer.removeprefix("conv")) - 1}'
    there = f'encoder.stages.{number}.layers.{block}.{inside}.convolution.weight'
    named[there].data = torched(kernel)


def torched(kernel: np.ndarray) -> torch.Tensor:
  return torch.tensor(kernel.transpose(3, 2, 0, 1).copy())


def features(found) -> torch.Tensor:
  """Returns the features, which newer versions of transformers wrap."""
  return getattr(found, 'pooler_output', found)


def compiled(function: Callable) -> Callable:
  return torch.compile(function) if _COMPILE.value else function


def without_gradient(function: Callable) -> Callable[[], np.ndarray]:
  def run() -> np.ndarray:
    with torch.no_grad():
      return function().numpy()

  return run


if __name__ == '__main__':
  app.run(main)
