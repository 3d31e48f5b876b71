"""Reading files of PyTorch before 1.6: correct values, and no file can run code."""

import pickle
import re

import numpy as np
import pytest

import torch_files
from rahf.errors import InputError
from rahf.pretrained.tensors import read_weights
from rahf.pretrained.torch_legacy import open_legacy
from torch_files import ORDERED_DICT, View, contiguous, plain

SHARED = np.arange(24, dtype=np.float32)
VIEWS = {
  'kernel': contiguous(SHARED.reshape(4, 6)[::-1].copy()),
  'steps': contiguous(np.array(-7)),
  'half': contiguous(np.linspace(0, 1, 5).astype(np.float16)),
  'empty': contiguous(np.zeros((0, 3), np.float32)),
  'transposed': View(SHARED, (6, 4), (1, 6)),
  'part': View(SHARED, (2, 3), (6, 2), 7),
}
EXPECTED = {
  'kernel': SHARED.reshape(4, 6)[::-1],
  'steps': np.array(-7),
  'half': np.linspace(0, 1, 5).astype(np.float16),
  'empty': np.zeros((0, 3), np.float32),
  'transposed': SHARED.reshape(4, 6).T,
  'part': SHARED.reshape(4, 6)[1:3, 1:6:2],
}


def check(path) -> None:
  found = read_weights(path)
  assert list(found) == list(EXPECTED)
  for name, expected in EXPECTED.items():
    array = found[name].read()
    assert array.dtype == found[name].dtype == expected.dtype
    assert array.shape == found[name].shape == expected.shape
    np.testing.assert_array_equal(array, expected, err_msg=name)


def test_all_layouts_are_read(tmp_path):
  torch_files.write_legacy(tmp_path / 'x.pth', VIEWS)
  check(tmp_path / 'x.pth')


def test_files_written_by_pytorch_are_read(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra rahf[parity]')
  state = {name: torch.tensor(value.copy()) for name, value in EXPECTED.items()}
  whole = torch.tensor(SHARED).reshape(4, 6)
  state |= {'transposed': whole.T, 'part': whole[1:3, 1:6:2]}
  path = tmp_path / 'x.pth'
  torch.save({'state_dict': state}, path, _use_new_zipfile_serialization=False)
  check(path)
  module = torch.nn.BatchNorm2d(3)
  torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)
  assert open_legacy(path).keys() == module.state_dict().keys()


def test_no_pickle_in_the_file_is_run(tmp_path, payload):
  path = tmp_path / 'x.pth'
  torch_files.write_legacy(path, VIEWS, code=plain(payload))
  with pytest.raises(InputError, match=r'io\.open, which weights do not need'):
    open_legacy(path)
  for number in range(1, 4):
    parts = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, {}]
    parts[number] = payload
    path.write_bytes(b''.join(pickle.dumps(part, 2) for part in parts))
    with pytest.raises(InputError, match=r'io\.open, which weights do not need'):
      open_legacy(path)


@pytest.mark.parametrize('cut', [20, 300, -30, -1])
def test_truncated_files(tmp_path, cut):
  path = tmp_path / 'x.pth'
  torch_files.write_legacy(path, VIEWS)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(
    InputError, match=re.escape(str(path)) + ' (is truncated|has a damaged pickle)'
  ):
    open_legacy(path)


def test_damaged_files(tmp_path):
  path = tmp_path / 'x.pth'
  torch_files.write_legacy(path, VIEWS)
  whole = path.read_bytes()
  path.write_bytes(whole + b'\0')
  with pytest.raises(InputError, match='has more bytes than its tensors'):
    open_legacy(path)
  path.write_bytes(whole.replace(b'\x88', b'\x89', 1))
  with pytest.raises(InputError, match='big-endian'):
    open_legacy(path)
  path.write_bytes(whole.replace(b'M\xe9\x03', b'M\xe8\x03', 1))
  with pytest.raises(InputError, match='has version 1000, not 1001'):
    open_legacy(path)
  torch_files.write_legacy(path, VIEWS, code=ORDERED_DICT)
  with pytest.raises(InputError, match='lists other storages'):
    open_legacy(path)
  beyond = {'x': VIEWS['part']._replace(offset=14)}
  torch_files.write_legacy(path, beyond)
  with pytest.raises(InputError, match='ends beyond its storage 0'):
    open_legacy(path)
