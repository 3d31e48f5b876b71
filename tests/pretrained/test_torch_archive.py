"""Reading PyTorch's archives: correct values, and no file can run code."""

import os
import pickle
import re
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

import torch_files
from rahf.errors import InputError
from rahf.pretrained.torch_archive import open_torch
from torch_files import ORDERED_DICT, View, constant, contiguous, plain, tensor

RNG = np.random.default_rng(0)
ONE = np.ones(6, np.float32)


class Calls:
  """An object whose unpickling calls a function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def views() -> dict[str, View]:
  """Tensors of all dtypes and layouts, and their expected values."""
  shared = np.arange(24, dtype=np.float32)
  return {
    'kernel': contiguous(RNG.standard_normal((3, 4)).astype(np.float32)),
    'half': contiguous(RNG.standard_normal((2, 3)).astype(np.float16)),
    'brain': contiguous(np.asarray(RNG.standard_normal((2, 3)), jnp.bfloat16)),
    'steps': contiguous(np.array(-7)),
    'empty': contiguous(np.zeros((0, 3), np.float32)),
    'transposed': View(shared, (6, 4), (1, 6)),
    'part': View(shared, (2, 3), (6, 2), 7),
    'expanded': constant((5, 2)),
    'negative': View(shared, (2, 3), (6, 2), 7, {'neg': True}),
    'negative brain': contiguous(np.asarray(shared, jnp.bfloat16))._replace(
      bits={'neg': True}
    ),
    'plain': contiguous(shared)._replace(bits={}),
  }


def expected(view: View) -> np.ndarray:
  """Returns a tensor's values, by the definition of strides."""
  places = view.offset + sum(
    np.arange(size).reshape(-1, *[1] * (len(view.shape) - axis - 1)) * stride
    for axis, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True))
  )
  array = view.storage[np.broadcast_to(places, view.shape)]
  return -array if (view.bits or {}).get('neg') else array


@pytest.mark.parametrize('order', ['little', 'big', ''])
@pytest.mark.parametrize('wrapper', ['', 'model', 'state_dict'])
def test_all_layouts_are_read(tmp_path, order, wrapper):
  written = views()
  path = tmp_path / 'x.pt'
  torch_files.write_state_dict(path, written, order=order, wrapper=wrapper)
  found = open_torch(path)
  assert list(found) == list(written)
  for name, view in written.items():
    array = found[name].read()
    assert (array.shape, array.dtype) == (view.shape, view.storage.dtype)
    np.testing.assert_array_equal(array, expected(view), err_msg=name)
  assert found['transposed'].storage == found['part'].storage
  assert found['kernel'].storage != found['half'].storage


def test_files_written_by_pytorch_are_read(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra rahf[parity]')
  torch.manual_seed(0)
  module = torch.nn.Sequential(
    torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(3, 4)
  )
  state = module.state_dict()
  state['parameter'] = torch.nn.Parameter(torch.randn(2, 3))
  state['brain'] = torch.randn(5).bfloat16()
  state['half'] = torch.randn(5).half()
  state['transposed'] = state['0.weight'].permute(2, 3, 1, 0)
  state['part'] = torch.randn(4, 6)[1:3, ::2]
  conjugate = torch.randn(3, 4, dtype=torch.complex64).conj()
  state['imaginary'] = conjugate.imag.clone()
  state['negative'] = torch.complex(state['imaginary'], state['imaginary']).conj().imag
  assert state['negative'].is_neg()
  for value in (state, {'model': state, 'epoch': 3, 'lr': [1e-3]}):
    torch.save(value, tmp_path / 'x.pt')
    found = open_torch(tmp_path / 'x.pt')
    assert list(found) == list(state)
    for name, value in state.items():
      array = found[name].read()
      np.testing.assert_array_equal(
        array.astype(np.float32),
        value.detach().resolve_neg().float().numpy(),
        err_msg=name,
      )
    assert found['transposed'].storage == found['0.weight'].storage
  written = views()
  torch_files.write_state_dict(tmp_path / 'ours.pt', written)
  loaded = torch.load(tmp_path / 'ours.pt', weights_only=True)
  for name, view in written.items():
    np.testing.assert_array_equal(
      loaded[name].resolve_neg().float().numpy(),
      expected(view).astype(np.float32),
      err_msg=name,
    )


def test_arrays_are_read_lazily(tmp_path):
  path = tmp_path / 'x.pt'
  torch_files.write_state_dict(path, {'a': contiguous(ONE), 'b': contiguous(2 * ONE)})
  data = path.read_bytes()
  path.write_bytes(data.replace(ONE.tobytes(), (3 * ONE).tobytes()))
  found = open_torch(path)
  assert found['a'].shape == (6,)
  np.testing.assert_array_equal(found['b'].read(), 2 * ONE)
  with pytest.raises(InputError, match=r'x.pt is damaged in data/0: Bad CRC-32'):
    found['a'].read()


def nested(code: bytes) -> bytes:
  """Returns pickle instructions that refer to a storage described by `code`."""
  return b'(' + plain('storage') + code + plain('0') + plain('cpu') + plain(6) + b'tQ'


def attacks(trace: str) -> dict[str, bytes]:
  """Pickles that leave a trace when run, and the functions they call."""
  system = plain(Calls(os.system, f'touch {trace}'))
  evaluate = plain(Calls(eval, f"open({trace!r}, 'w')"))
  return {
    'posix.system': system,
    'builtins.eval|__builtin__.eval': evaluate,
    'posix.system (in a storage)': nested(system),
    'builtins.eval|__builtin__.eval (in a dict)': b'}'
    + plain('model')
    + evaluate
    + b's',
    'builtins.getattr': b'cbuiltins\ngetattr\n(ccollections\nOrderedDict\n'
    + plain('__init_subclass__')
    + b'tR',
    'torch.load': b'ctorch\nload\n' + plain((trace,)) + b'R',
    'torch.jit._pickle.build_intlist': b'ctorch.jit._pickle\nbuild_intlist\n',
    'collections.OrderedDict.fromkeys': plain('collections')
    + plain('OrderedDict.fromkeys')
    + b'\x93',
  }


@pytest.mark.parametrize('called', attacks(''))
def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path, called):
  trace, path = tmp_path / 'trace', tmp_path / 'x.pt'
  torch_files.write_archive(path, attacks(str(trace))[called], {'0': ONE})
  names = called.split(' ')[0].replace('.', r'\.')
  with pytest.raises(InputError, match=rf'x\.pt refers to ({names}), .*was not run'):
    open_torch(path)
  assert not trace.exists()


@pytest.mark.parametrize('called', list(attacks(''))[:2])
def test_the_payloads_would_run(tmp_path, called):
  trace = tmp_path / 'trace'
  pickle.loads(b'\x80\x02' + attacks(str(trace))[called] + b'.')
  assert trace.exists()


def change_state(name: str, value) -> bytes:
  """Returns pickle instructions that set a field of the last object."""
  return b'}' + plain(name) + plain(value) + b'sb'


STORAGE = nested(b'ctorch\nFloatStorage\n')
VIEW = View(ONE, (2, 3), (3, 1))
GOOD = tensor('0', VIEW)


@pytest.mark.parametrize(
  ('code', 'message'),
  [
    (tensor('0', VIEW._replace(offset=1)), 'a tensor that ends beyond data/0'),
    (tensor('0', VIEW._replace(strides=(4, 1))), 'a tensor that ends beyond data/0'),
    (
      tensor('0', VIEW._replace(bits={'conj': True})),
      "has a tensor with the properties {'conj': True}: only dense tensors of",
    ),
    (tensor('0', VIEW._replace(bits={'odd': 3})), "the properties {'odd': 3}: only"),
    (tensor('0', VIEW._replace(bits='neg')), "the properties 'neg': only dense"),
    (tensor('0', VIEW._replace(strides=(-1, 1))), 'with an invalid description'),
    (tensor('0', VIEW._replace(strides=(1,))), 'with an invalid description'),
    (tensor('0', VIEW._replace(shape=[2, 3])), 'with an invalid description'),
    (tensor('0', VIEW._replace(offset=True)), 'with an invalid description'),
    (tensor('1', VIEW), 'lacks data/1'),
    (tensor('../../etc/passwd', VIEW), 'lacks data/../../etc/passwd'),
    (
      tensor('0', VIEW._replace(storage=np.ones(7, np.float32))),
      'has 24 bytes in data/0, which should have 7 values of float32',
    ),
    (GOOD + change_state('strides', (1 << 40, 1)), 'Tensor has no state'),
    (STORAGE + change_state('size', 1 << 40), 'Storage has no state'),
    (b'ctorch\nFloatStorage\n' + change_state('dtype', 'x'), 'StorageType has no st'),
    (nested(plain('float')), "refers to something that is not a storage: ('storage'"),
    (plain('0') + b'Q', "refers to something that is not a storage: '0'"),
    (GOOD, 'contains Tensor, not a state dict'),
    (b'}' + plain(3) + GOOD + b's', 'contains Tensor as 3, but a state dict has'),
    (
      b'}' + plain('step') + plain(3) + b's',
      "contains int as 'step', but a state dict",
    ),
    (b'}' + plain('x'), 'contains str, not a state dict'),
    (b'}' + plain('x') + b's', 'has a damaged data.pkl: '),
    (b'R', 'has a damaged data.pkl: '),
    (b'X\x01\x00\x00\x00\xff', 'has a damaged data.pkl: UnicodeDecodeError'),
  ],
)
def test_invalid_state_dicts_are_refused(tmp_path, code, message):
  torch_files.write_archive(tmp_path / 'x.pt', code, {'0': ONE})
  with pytest.raises(InputError, match=re.escape(message)) as error:
    open_torch(tmp_path / 'x.pt')
  assert str(error.value).startswith(f'{tmp_path}/x.pt ')


def test_dicts_keep_only_their_items(tmp_path):
  code = ORDERED_DICT + plain('a') + GOOD + b's' + change_state('items', 3)
  torch_files.write_archive(tmp_path / 'x.pt', code, {'0': ONE})
  np.testing.assert_array_equal(
    open_torch(tmp_path / 'x.pt')['a'].read(), np.ones((2, 3))
  )


def test_damaged_files_are_named(tmp_path):
  path = tmp_path / 'x.pt'
  torch_files.write_state_dict(path, views())
  data = path.read_bytes()
  for size in (0, 3, len(data) // 2, len(data) - 10):
    path.write_bytes(data[:size])
    with pytest.raises(
      InputError, match=r'x\.pt is not a PyTorch archive, or truncated'
    ):
      open_torch(path)


def test_damage_outside_a_tensor_is_found(tmp_path):
  # Several tensors share one storage, whose checksum covers all of its values.
  values = np.arange(100_000, dtype=np.float32)
  views = {
    'first': View(values, (10,), (1,)),
    'last': View(values, (10,), (1,), 99_990),
  }
  path = tmp_path / 'x.pt'
  torch_files.write_state_dict(path, views)
  for name, view in views.items():
    found = open_torch(path)[name].read()
    np.testing.assert_array_equal(found, expected(view))
  data = path.read_bytes()
  for number in (5, 50_000):
    place = data.index(values.tobytes()) + number * values.itemsize
    path.write_bytes(data[:place] + b'\xff' + data[place + 1 :])
    for name in views:
      with pytest.raises(InputError, match=r'x.pt is damaged in data/0: Bad CRC-32'):
        open_torch(path)[name].read()


def test_a_pointer_is_named(tmp_path):
  path = tmp_path / 'x.pt'
  path.write_bytes(
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
  )
  with pytest.raises(InputError, match=r'x\.pt is a Git LFS pointer.*git lfs pull'):
    open_torch(path)


def test_other_tensors_are_refused_by_name(tmp_path):
  torch = pytest.importorskip('torch', reason='needs the extra rahf[parity]')
  dense = torch.arange(12.0).reshape(3, 4)
  tagged = dense.clone()
  tagged.tag = 'x'
  parameter = torch.nn.Parameter(dense.clone())
  parameter.tag = 'x'
  others = {
    'torch.ComplexFloatStorage': torch.complex(dense, dense).conj(),
    'torch.IntStorage': dense.int(),
    'torch.BoolStorage': dense > 3,
    'torch._utils._rebuild_tensor_v3': dense.to(torch.float8_e4m3fn),
    'torch._utils._rebuild_sparse_tensor': dense.to_sparse(),
    'torch._utils._rebuild_qtensor': torch.quantize_per_tensor(
      dense, 1, 0, torch.qint8
    ),
    'torch._utils._rebuild_meta_tensor_no_storage': dense.to('meta'),
    'torch._utils._rebuild_nested_tensor': torch.nested.nested_tensor([dense]),
    'torch._utils._rebuild_parameter_with_state': parameter,
    'torch._tensor._rebuild_from_type_v2': tagged,
  }
  for name, other in others.items():
    torch.save({'x': other}, tmp_path / 'x.pt')
    with pytest.raises(
      InputError, match=rf'refers to {name}, .* only dense tensors of'
    ):
      open_torch(tmp_path / 'x.pt')


def test_pickles_of_early_pytorch_are_refused(tmp_path, payload):
  path = tmp_path / 'x.pt'
  path.write_bytes(pickle.dumps(payload))
  with pytest.raises(
    InputError, match=r'x\.pt is a pickle, as written by PyTorch before 1\.6'
  ):
    open_torch(path)


def test_other_archives_are_refused(tmp_path):
  path = tmp_path / 'x.pt'
  np.savez(path.open('wb'), a=ONE)
  with pytest.raises(InputError, match=r'not from PyTorch: it has no data\.pkl'):
    open_torch(path)
  torch_files.write_state_dict(path, views(), order='middle')
  with pytest.raises(InputError, match="in 'middle' byte order"):
    open_torch(path)
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('archive/data.pkl', bytes(1 << 20))
  with pytest.raises(InputError, match=r'has data\.pkl compressed'):
    open_torch(path)
