"""Images from files, arrays and PIL give the same pixels as in training."""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from util import make_pixels

from rahf.data.images import codec
from rahf.data.images.inputs import read_pixels, split_images


def test_pixels_are_the_same_as_in_training():
  """JPEG with EXIF rotation, transparency, 16 bits and grey, as in decode_image."""
  turned = io.BytesIO()
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(make_pixels()).save(turned, 'JPEG', exif=exif)
  transparent = io.BytesIO()
  rgba = np.dstack([make_pixels(), make_pixels()[..., 0]])
  Image.fromarray(rgba).save(transparent, 'PNG')
  deep = io.BytesIO()
  Image.fromarray(make_pixels()[..., 0].astype(np.uint16) * 257).save(deep, 'PNG')
  for file in (turned, transparent, deep):
    expected = codec.decode_image(file.getvalue())
    np.testing.assert_array_equal(read_pixels(file.getvalue()), expected)
    np.testing.assert_array_equal(read_pixels(Image.open(file)), expected)
  assert codec.decode_image(turned.getvalue()).shape == (40, 24, 3)
  np.testing.assert_array_equal(read_pixels(deep.getvalue())[..., 1], rgba[..., 3])


def test_pixels_of_16_bits():
  """Files and PIL images keep their high byte."""
  levels = np.arange(0, 65536, 1024, np.uint16).reshape(8, 8)
  file = io.BytesIO()
  Image.fromarray(levels).save(file, 'PNG')
  for given in (file.getvalue(), Image.open(file), Image.fromarray(levels)):
    np.testing.assert_array_equal(read_pixels(given)[..., 1], levels >> 8)


def test_an_unreachable_bucket(monkeypatch):
  def read_bytes(_):
    raise RuntimeError('no route to it')

  monkeypatch.setattr('etils.epath.gpath._GPath.read_bytes', read_bytes)
  with pytest.raises(codec.ImageError, match=r'gs://a/b\.png cannot be read: no route'):
    read_pixels('gs://a/b.png')


def test_images_in_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'a.png').write_bytes(codec.encode_png(make_pixels()))
  np.testing.assert_array_equal(read_pixels('~/a.png'), make_pixels())


@pytest.fixture
def torch():
  return pytest.importorskip('torch', reason='pip install "rahf[parity]"')


@pytest.mark.parametrize(
  'dtype', ['uint8', 'float16', 'bfloat16', 'float32', 'float64']
)
def test_tensors_of_pytorch(torch, dtype):
  """Also those that require gradients; bfloat16 has 8 significant bits."""
  pixels = make_pixels()
  tensor = torch.from_numpy(pixels)
  if dtype != 'uint8':
    tensor = (tensor / 255).to(getattr(torch, dtype)).requires_grad_()
  found = read_pixels(tensor).astype(int)
  np.testing.assert_allclose(found, pixels, atol=1 if dtype == 'bfloat16' else 0)
  (single,) = split_images(tensor)
  np.testing.assert_array_equal(read_pixels(single), found)
  several = split_images([tensor[None].repeat(2, 1, 1, 1), tensor, pixels])
  assert len(several) == 4
  for one in several[:3]:
    np.testing.assert_array_equal(read_pixels(one), found)
  if dtype != 'uint8':  # PyTorch defers the sign until the values are used.
    np.testing.assert_array_equal(read_pixels(torch._neg_view(-tensor)), found)
  # Strided arrays are not contiguous.
  np.testing.assert_array_equal(read_pixels(tensor[::2, 1::2]), found[::2, 1::2])


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda t: t.zeros(3, 8, 9), r'shape \[3, 8, 9\] .*move the channels last'),
    (lambda t: t.zeros(8, 9), r'shape \[8, 9\] is not an image'),
    (lambda t: t.zeros(8, 9, 3, dtype=t.int64), 'int64 has no known range'),
    (lambda t: t.zeros(8, 9, 3, dtype=t.complex64), 'complex64 has no known range'),
    (lambda t: t.full((8, 9, 3), 255.0), r'x / 255'),
    (
      lambda t: t.zeros(8, 9, 3, device='meta'),
      r'a tensor of torch\.float32 cannot be',
    ),
    (lambda t: t.zeros(8, 9, 3).to_sparse(), r'a tensor of torch\.float32 cannot be'),
  ],
)
def test_invalid_tensors(torch, make, message):
  with pytest.raises(codec.ImageError, match=message):
    [read_pixels(image) for image in split_images(make(torch))]


def test_pytorch_is_not_imported():
  code = (
    'import sys, numpy as np\nfrom rahf.data.images.inputs import read_pixels\n'
    'read_pixels(np.zeros((2, 2, 3)))\nprint("torch" in sys.modules)'
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert found.stdout.strip() == 'False', found.stderr


@pytest.mark.parametrize('size', [(0, 5), (5, 0), (0, 0)])
def test_pil_images_without_pixels(size):
  with pytest.raises(codec.ImageError, match=rf'^{size[0]}x{size[1]}: it has no pixel'):
    read_pixels(Image.new('RGB', size))


def test_base64_text():
  """Text from a browser or a service is not a path."""
  data = codec.encode_png(make_pixels())
  text = base64.b64encode(data).decode()
  for given in (text, f'data:image/png;base64,{text}'):
    with pytest.raises(codec.ImageError, match='base64 text is not a path') as caught:
      read_pixels(given)
    assert len(str(caught.value)) < 200


def test_git_lfs_pointers(tmp_path):
  path = tmp_path / 'a.png'
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n')
  with pytest.raises(codec.ImageError, match=r'a\.png is a Git LFS pointer.* lfs pull'):
    read_pixels(path)


def test_elements_of_arrays_of_paths_and_bytes(tmp_path):
  data = codec.encode_png(make_pixels())
  (tmp_path / 'a.png').write_bytes(data)
  for element in (np.str_(tmp_path / 'a.png'), np.bytes_(data)):
    (found,) = split_images([element])
    np.testing.assert_array_equal(read_pixels(found), make_pixels())
