"""Features of all images of a folder, for distances between sets of images.

Threads read and prepare images while the devices work on earlier ones; only a few
batches are in memory, and the features. Each readable image counts once: the last batch
is padded, and the padding is cut off.

Axis letters: B batch, N images, H W image size, S side of the network's input, D width.
"""

import concurrent.futures
import functools
import itertools
import os
import types
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8
from tqdm import tqdm

from rahf.data.images import clip_image, inception_image, inputs
from rahf.data.pipeline.prefetch import prefetch
from rahf.data.sources.item import Load
from rahf.data.sources.source import open_source
from rahf.errors import InputError
from rahf.models import clip
from rahf.models.inception import Inception
from rahf.pretrained import formats
from rahf.pretrained.clip import NO_HINTS, Hints, clip_config
from rahf.pretrained.inception import open_inception
from rahf.pretrained.loading import plan
from rahf.runtime.tree import by_path


class Extractor(NamedTuple):
  """A pretrained network that turns images into features.

  Attributes:
    name: of the network and its preprocessing; belongs beside each number.
    prepare: from the pixels of an image to the network's input, [S, S, 3] float32.
    embed: from a batch of inputs to features, [B, D] float32; B must be a multiple of
      the number of local devices.
  """

  name: str
  prepare: Callable[[UInt8[np.ndarray, 'H W 3']], Float[np.ndarray, 'S S 3']]
  embed: Callable[[Float[np.ndarray, 'B S S 3']], Float[Array, 'B D']]


class Unreadable(NamedTuple):
  """An image without features, and why."""

  uid: str
  reason: str


class Prepared(NamedTuple):
  """An image as the network takes it."""

  uid: str
  image: Float[np.ndarray, 'S S 3']


class ImageFeatures(NamedTuple):
  """Features of a set of images, in the order of the source.

  Attributes:
    features: float32 [N, D].
    uids: the names of the N images.
    unreadable: the images that are not among them.
    linked: symlinked folders, which were not searched.
  """

  features: Float[np.ndarray, 'N D']
  uids: list[str]
  unreadable: list[Unreadable]
  linked: Sequence[os.PathLike]


def clip_features(path: epath.PathLike, hints: Hints = NO_HINTS) -> Extractor:
  """Opens a CLIP for CMMD: projected image features, scaled to length 1.

  Published values of CMMD are those of OpenAI's ViT-L/14 at 336 px; other CLIPs give
  other numbers. The largest square is cut from the centre and scaled, as CMMD's code
  does.

  Args:
    path: weights that `rahf.pretrained` reads, such as OpenAI's ViT-L-14-336px.pt.
    hints: heads and activations of a CLIP whose files do not tell.

  Raises:
    InputError: it cannot be read, or is not a CLIP.
  """
  source = formats.open_source(path, hints=hints)
  if 'clip.vision.width' not in source.settings:
    raise InputError(f'{path} is a {source.kind}, not a CLIP')
  config = clip_config(source)
  shapes = {
    f'clip/{p}': leaf for p, leaf in by_path(clip.abstract_params(config)).items()
  }
  weights = plan({'clip': source}, shapes, types.SimpleNamespace(clip=config))
  # The text tower is not read.
  vision = [path for path in shapes if path.startswith('clip/vision/')]
  params = traverse_util.unflatten_dict(
    {path.removeprefix('clip/vision/'): weights.read_one(path) for path in vision},
    sep='/',
  )

  def prepare(pixels: UInt8[np.ndarray, 'H W 3']) -> Float[np.ndarray, 'S S 3']:
    square = clip_image.crop_then_scale(pixels, config.image_size)
    return clip_image.normalised(square)

  def embed(params: Any, images: Float[Array, 'B S S 3']) -> Float[Array, 'B D']:
    tower = clip.VisionTower(config, jnp.dtype('float32'))
    return clip.normalised(tower.apply({'params': params}, images))

  known = (name for name, size in clip.SIZES.items() if size == config)
  name = next(known, f'of {config.image_size} px, not a published size')
  return Extractor(f'CLIP {name}', prepare, on_devices(embed, params))


def inception_features(path: epath.PathLike, resize: str = 'pytorch_fid') -> Extractor:
  """Opens FID's Inception: the 2,048 features of `pool_3`.

  Args:
    path: pt_inception-2015-12-05-6726825d.pth of pytorch-fid.
    resize: one of `inception_image.CONVENTIONS`; FIDs of different ones cannot be
      compared.

  Raises:
    InputError: it is another network or cannot be read, or `resize` is unknown.
  """
  inception_image.check_convention(resize)
  source = open_inception(path)
  tree = traverse_util.unflatten_dict(
    {path: np.asarray(w.read(), np.float32) for path, w in source.arrays.items()},
    sep='/',
  )
  statistics = tree['batch_stats']['inception']
  variables = {'params': tree['inception'], 'batch_stats': statistics}
  return Extractor(
    f'Inception 2015-12-05, resized as {resize}',
    functools.partial(inception_image.squash, convention=resize),
    on_devices(Inception().apply, variables),
  )


def extract(
  extractor: Extractor,
  path: str,
  *,
  batch_size: int = 32,
  wanted: Collection[int] | None = None,
  flag: str = '--images',
  title: str = 'Features',
) -> ImageFeatures:
  """Computes the features of all images, with a progress bar.

  Args:
    path: a folder of images, which need no prompts, or another of `source.KINDS`.
    batch_size: rounded up to a multiple of the number of local devices.
    wanted: positions of the images to take; None for all.
    flag: that gave the path, for errors.
    title: of the progress bar.

  Raises:
    InputError: the path cannot be read, or no image in it.
  """
  source = open_source(path, images_only=True, flag=flag)
  size = -(-batch_size // jax.local_device_count()) * jax.local_device_count()
  features, uids, unreadable = [], [], []
  with (
    concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    tqdm(
      total=source.rows if wanted is None else len(wanted),
      desc=title,
      unit='image',
      mininterval=1,
      disable=None,
    ) as bar,
  ):

    def prepare_all(batch: Sequence[tuple[int, Load]]) -> list[Prepared | Unreadable]:
      return [*pool.map(functools.partial(_prepare, extractor), batch)]

    rows = source.read((lambda _: True) if wanted is None else wanted.__contains__)
    batches = iter(lambda: list(itertools.islice(rows, size)), [])
    for batch in prefetch(batches, prepare_all):
      ready = [one for one in batch if isinstance(one, Prepared)]
      unreadable += [one for one in batch if isinstance(one, Unreadable)]
      if ready:
        features.append(_embed(extractor, [one.image for one in ready], size))
        uids += [one.uid for one in ready]
      if unreadable:
        bar.set_postfix(unreadable=len(unreadable), refresh=False)
      bar.update(len(batch))
  if not features:
    first = unreadable[0]
    raise InputError(
      f'{flag} {path}: none of its {source.rows:,} images can be read; the first is '
      f'{first.uid}: {first.reason}'
    )
  return ImageFeatures(np.concatenate(features), uids, unreadable, source.linked)


def _prepare(extractor: Extractor, row: tuple[int, Load]) -> Prepared | Unreadable:
  position, load = row
  item = load()
  uid = item.uid or str(position)
  if item.error:
    return Unreadable(uid, item.error)
  try:
    return Prepared(uid, extractor.prepare(inputs.read_pixels(item.image)))
  except InputError as error:
    return Unreadable(uid, str(error))
  except Exception as error:  # Decoders raise many kinds.
    return Unreadable(uid, f'{type(error).__name__}: {error}')


def _embed(
  extractor: Extractor, images: Sequence[Float[np.ndarray, 'S S 3']], size: int
) -> Float[np.ndarray, 'N D']:
  """Embeds at most `size` images as a batch of `size`, compiled once."""
  padding = [np.zeros_like(images[0])] * (size - len(images))
  features = extractor.embed(np.stack([*images, *padding]))
  return np.asarray(features, np.float32)[: len(images)]


def on_devices(
  embed: Callable[[Any, Float[Array, 'B S S 3']], Float[Array, 'B D']], variables: Any
) -> Callable[[Float[np.ndarray, 'B S S 3']], Float[Array, 'B D']]:
  """Compiles a network, and splits its batches over the local devices."""
  mesh = Mesh(np.array(jax.local_devices()), ('data',))
  split = NamedSharding(mesh, PartitionSpec('data'))
  variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
  embed = jax.jit(embed)

  def run(images: Float[np.ndarray, 'B S S 3']) -> Float[Array, 'B D']:
    # GPUs and TPUs would round to fewer digits, which changes distances.
    with jax.default_matmul_precision('highest'):
      return embed(variables, jax.device_put(images, split))

  return run
