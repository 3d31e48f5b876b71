"""Distances of folders with features of a known form."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from rahf.errors import InputError
from rahf.evaluation.generator_distances import measure
from rahf.evaluation.image_features import Extractor

# The level of a grey image as an angle, and as three equal numbers.
ANGLE = Extractor(
  'CLIP L/14@336',
  lambda p: p[:1, :1] / np.float32(255),
  lambda x: np.stack([np.cos(x[:, 0, 0, 0]), np.sin(x[:, 0, 0, 0])], 1),
)
LEVEL = Extractor('levels', ANGLE.prepare, lambda x: x[:, 0, 0])


def write(folder: pathlib.Path, levels) -> str:
  folder.mkdir()
  for number, level in enumerate(levels):
    pixels = np.full((3, 4, 3), level, np.uint8)
    Image.fromarray(pixels).save(folder / f'{number}.png')
  return str(folder)


@pytest.fixture
def folders(tmp_path) -> dict[str, str]:
  return {
    'far': write(tmp_path / 'far', [100, 120, 140]),
    'near': write(tmp_path / 'near', [10, 30, 50]),
  }


def test_fid_of_a_shift_is_its_square(folders, tmp_path):
  real = write(tmp_path / 'real', [0, 20, 40])
  found = measure('FID', LEVEL, real, folders, batch_size=2)
  assert found.values == pytest.approx(
    [3 * (d / 255) ** 2 for d in (100, 10)], rel=1e-4
  )
  assert found.ranks == [2, 1]
  assert (found.extractor, found.reference_images, found.images) == (
    'levels',
    3,
    [3, 3],
  )
  (note,) = found.notes
  assert note.startswith('FID is of 3 images only; with fewer than 10,000')


def test_cmmd_by_its_kernel(folders, tmp_path):
  real = write(tmp_path / 'real', [0, 20, 40])
  found = measure('CMMD', ANGLE, real, folders, batch_size=8)

  def kernel(one, other) -> float:
    between = np.subtract.outer(np.array(one), np.array(other)) / 255
    return np.exp(-(2 - 2 * np.cos(between)) / 200).mean()

  for levels, value in zip(([100, 120, 140], [10, 30, 50]), found.values, strict=True):
    same = [0, 20, 40]
    squared = kernel(levels, levels) + kernel(same, same) - 2 * kernel(levels, same)
    assert value == pytest.approx(1000 * squared, rel=1e-4)
  assert found.ranks == [2, 1]
  assert found.notes == []


def test_what_makes_numbers_hard_to_compare(folders, tmp_path):
  real = write(tmp_path / 'real', [0, 20])
  (tmp_path / 'far' / '1.png').write_bytes(b'no image')
  other = ANGLE._replace(name='CLIP B/32')
  found = measure('CMMD', other, real, folders, batch_size=8)
  assert found.images == [2, 3]
  left_out, network, numbers = found.notes
  assert 'CMMD leaves out images of far that cannot be read: 1, the first 1.png' in (
    left_out
  )
  assert 'published values of CMMD are of CLIP L/14@336; these are of CLIP B/32' in (
    network
  )
  assert 'not equally many' in numbers


def test_one_image_has_no_distance(folders, tmp_path):
  real = write(tmp_path / 'real', [0])
  with pytest.raises(InputError, match=r'--reference .*real has one readable image'):
    measure('CMMD', ANGLE, real, folders, batch_size=8)
  assert (
    measure('FID', LEVEL, folders['far'], {'near': folders['near']}, batch_size=8).ranks
    == []
  )
