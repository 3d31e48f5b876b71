"""Features of folders of images: each image once, and as the networks' own code."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import traverse_util
from PIL import Image

import clip_directory
import inception_files
from golden_noise import noise
from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.evaluation import image_features
from rahf.evaluation.image_features import Extractor, extract
from rahf.metrics.distribution import cmmd
from rahf.models.clip import CLIP, abstract_params
from rahf.pretrained.clip_export import write_huggingface
from rahf.runtime.tree import by_path
from torch_files import contiguous, write_legacy

GOLDEN = pathlib.Path(__file__).parents[1] / 'goldens' / 'inception.json'
# Of an image of one grey, its level; the network is not what these tests are about.
GREY = Extractor(
  'grey', lambda p: p[:2, :2] / np.float32(255), lambda x: x.mean((1, 2))
)


def write_greys(folder: pathlib.Path, levels) -> pathlib.Path:
  folder.mkdir(parents=True, exist_ok=True)
  for level in levels:
    pixels = np.full((4 + level % 3, 5, 3), level, np.uint8)
    Image.fromarray(pixels).save(folder / f'{level:03}.png')
  return folder


@pytest.mark.parametrize('batch_size', [1, 8, 17, 64])
def test_every_image_counts_once_in_batches_of_any_size(tmp_path, batch_size):
  folder = write_greys(tmp_path / 'images', range(0, 34, 2))
  write_greys(folder / 'below', [99])
  found = extract(GREY, str(folder), batch_size=batch_size)
  levels = [*range(0, 34, 2), 99]
  assert found.features.dtype == np.float32
  np.testing.assert_allclose(found.features[:, 0] * 255, levels, rtol=1e-6)
  assert found.uids == [f'{n:03}.png' for n in levels[:-1]] + ['below/099.png']
  assert not found.unreadable


def test_unreadable_images_are_named_and_left_out(tmp_path):
  folder = write_greys(tmp_path / 'images', range(20))
  (folder / '003.png').write_bytes(b'no image')
  whole = (folder / '007.png').read_bytes()
  (folder / '007.png').write_bytes(whole[: len(whole) // 2])
  (folder / 'x.gif').write_bytes(b'GIF89a')
  (folder / 'away').symlink_to(write_greys(tmp_path / 'other', [1]))
  found = extract(GREY, str(folder), batch_size=8)
  assert len(found.features) == len(found.uids) == 18
  assert [one.uid for one in found.unreadable] == ['003.png', '007.png', 'x.gif']
  assert 'not a PNG, JPEG or WEBP image' in found.unreadable[0].reason
  assert found.linked == [folder / 'away']
  levels = [n for n in range(20) if n not in (3, 7)]
  np.testing.assert_allclose(found.features[:, 0] * 255, levels, rtol=1e-6)


def test_a_batch_of_unreadable_images_and_a_table(tmp_path):
  folder = write_greys(tmp_path / 'images', [10, 20])
  table = tmp_path / 'table.csv'
  rows = ['image,prompt', *(f'images/no{i}.png,x' for i in range(20))]
  rows += ['images/010.png,x', 'images/020.png,x']
  table.write_text('\n'.join(rows))
  found = extract(GREY, str(table), batch_size=8)
  assert found.uids == ['images/010.png', 'images/020.png']
  assert len(found.unreadable) == 20
  for path in folder.iterdir():
    path.write_bytes(b'')
  with pytest.raises(
    InputError, match=r'--images .*: none of its 2 images .* 010\.png:'
  ):
    extract(GREY, str(folder))


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda path: None, '--real .*set: no such file or folder'),
    (lambda path: path.mkdir(), '--real .*set contains no known files'),
  ],
)
def test_errors_name_the_flag(tmp_path, make, message):
  make(tmp_path / 'set')
  with pytest.raises(InputError, match=message):
    extract(GREY, str(tmp_path / 'set'), flag='--real')


@pytest.fixture(scope='module')
def photos(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('photos')
  random = np.random.default_rng(0)
  for i, size in enumerate([(40, 61), (61, 40), (32, 32)]):
    pixels = random.integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'{i}.png')
  return folder


def test_features_of_clip(photos, tmp_path):
  config = clip_directory.CONFIG
  shapes = by_path(abstract_params(config))
  arrays = {
    path: np.float32(0.1 * noise(number, leaf.shape) + path.endswith('scale'))
    for number, (path, leaf) in enumerate(shapes.items())
  }
  params = traverse_util.unflatten_dict(arrays, sep='/')
  weights = epath.Path(tmp_path)
  write_huggingface(weights, config, params)
  extractor = image_features.clip_features(weights)
  assert extractor.name == 'CLIP of 32 px, not a published size'
  found = extract(extractor, str(photos)).features
  squares = []
  for path in sorted(photos.iterdir()):
    image = Image.open(path)
    side, (width, height) = min(image.size), image.size
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((32, 32), 3)
    squares.append(clip_image.normalised(np.asarray(square)))
  model = CLIP(config)
  embed = jax.jit(lambda x: model.apply({'params': params}, x, method='image_features'))
  expected = np.asarray(embed(jnp.stack(squares)))
  expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  assert abs(expected[0] - expected[1]).max() > 1e-3
  assert cmmd(found, found[::-1]) == pytest.approx(0, abs=1e-9)


def test_features_of_inception_are_those_of_pytorch_fid(tmp_path):
  weights = tmp_path / 'fid.pth'
  arrays = inception_files.arrays()
  write_legacy(weights, {name: contiguous(array) for name, array in arrays.items()})
  (tmp_path / 'images').mkdir()
  pixels = np.round(255 * (noise(0, (2, 3, 67, 91)) + 1) / 2).astype(np.uint8)
  for i, image in enumerate(pixels.transpose(0, 2, 3, 1)):
    Image.fromarray(image).save(tmp_path / 'images' / f'{i}.png')
  extractor = image_features.inception_features(weights)
  assert extractor.name == 'Inception 2015-12-05, resized as pytorch_fid'
  found = extract(extractor, str(tmp_path / 'images'), batch_size=2).features
  golden = json.loads(GOLDEN.read_text())['features']
  np.testing.assert_allclose(found.mean(1), golden['mean'], rtol=1e-5)
  np.testing.assert_allclose(found[:, ::128], golden['first'], rtol=1e-5, atol=1e-3)


def test_other_weights_are_refused(tmp_path):
  with pytest.raises(InputError, match="'tf' is not a way to resize"):
    image_features.inception_features(tmp_path / 'x', resize='tf')
  with pytest.raises(InputError, match='does not exist'):
    image_features.clip_features(tmp_path / 'x')
  arrays = {name: contiguous(a) for name, a in inception_files.arrays().items()}
  write_legacy(tmp_path / 'fid.pth', arrays)
  with pytest.raises(InputError, match='is a FID Inception, not a CLIP'):
    image_features.clip_features(tmp_path / 'fid.pth')
