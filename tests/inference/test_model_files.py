"""Every reader of a model directory refuses files that have changed."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import rahf
import tiny_directory
import tiny_model
from rahf import serve
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.infer import Job, infer
from rahf.inference import jax_export, model_directory, model_files, write_directory
from rahf.inference.model_directory import Description
from rahf.models.rahf import RAHF
from rahf.runtime.preemption import Interruption


@pytest.fixture(scope='module')
def directory(tmp_path_factory) -> pathlib.Path:
  """A model directory with everything that one may hold."""
  folder = tmp_path_factory.mktemp('model')
  plain = tiny_directory.write(folder)
  description = model_directory.read_description(epath.Path(plain))
  params = tiny_model.make_params(RAHF(description.model))
  tokenizer = Tokenizer(plain / 'tokenizer.model')
  write_directory.write(
    epath.Path(folder / 'whole'), description, params, tokenizer, program=True
  )
  return folder / 'whole'


@pytest.fixture
def copy(directory, tmp_path) -> pathlib.Path:
  return pathlib.Path(shutil.copytree(directory, tmp_path / 'copy'))


def flip(path: pathlib.Path) -> None:
  """Changes one bit of a file's last byte."""
  data = bytearray(path.read_bytes())
  data[-1] ^= 8
  path.write_bytes(data)


def edit(folder: pathlib.Path, remove=(), **changes) -> None:
  """Changes fields of model.json, as an editor does."""
  path = folder / 'model.json'
  settings = json.loads(path.read_text()) | changes
  path.write_text(json.dumps({k: v for k, v in settings.items() if k not in remove}))


def test_all_files_are_described(directory):
  settings = json.loads((directory / 'model.json').read_text())
  found = {
    str(path.relative_to(directory))
    for path in directory.rglob('*')
    if path.is_file() and path.name not in ('model.json', 'README.md')
  }
  assert settings['files'].keys() == found
  assert {'model.safetensors', 'tokenizer.model', 'program.jaxexport'} < found
  assert any(name.startswith('params/') for name in found)
  assert settings['format'] == 1  # Versions before read it still.


def test_one_bit_of_the_weights(copy):
  """The last byte is a value: the file is sound but for that."""
  path = copy / 'model.safetensors'
  before = safetensors.numpy.load_file(path)
  flip(path)
  after = safetensors.numpy.load_file(path)
  assert sum((before[name] != after[name]).sum() for name in before) == 1
  message = r'model\.safetensors is damaged: its SHA-256 is .* or export the model'
  for read in (rahf.load, rahf.reward):
    with pytest.raises(InputError, match=message):
      read(copy)
  image = copy.parent / 'a.csv'
  image.write_text('image,prompt\na.png,a red circle\n')
  with pytest.raises(InputError, match=message):
    infer(Job(str(copy), str(image), str(copy.parent / 'out')), Interruption())
  edit(copy, remove=('files', 'sha256'))
  rahf.load(copy)  # As versions before wrote it: nothing is known.


def test_the_service_does_not_start(copy, capsys):
  flip(copy / 'model.safetensors')
  assert serve.main([str(copy), '--port=0']) == 2
  assert 'model.safetensors is damaged' in capsys.readouterr().err


def test_tokenizer(copy):
  path = copy / 'tokenizer.model'
  before = Tokenizer(path).ids('qu')
  # Two pieces change their names: 'q' is 'u' and 'u' is 'q'.
  data = path.read_bytes()
  for old, new in ((b'q', b'?'), (b'u', b'q'), (b'?', b'u')):
    data = data.replace(b'\n\x01' + old + b'\x15', b'\n\x01' + new + b'\x15')
  path.write_bytes(data)
  assert Tokenizer(path).ids('qu') != before  # Which has no checksum of its own.
  with pytest.raises(InputError, match=r'tokenizer\.model is missing or damaged'):
    rahf.load(copy)


def test_program(copy):
  folder = epath.Path(copy)
  description = model_directory.read_description(folder)
  params = model_files.read_params(folder, description)
  program = jax_export.read(folder, description)
  found = program.call(params, *jax_export.random_inputs(description))
  assert found['scores'].shape == (jax_export.ROWS, 4)
  flip(copy / 'program.jaxexport')
  with pytest.raises(InputError, match=r'program\.jaxexport is damaged'):
    jax_export.read(folder, description)
  (copy / 'program.jaxexport').unlink()
  with pytest.raises(InputError, match=r'again with --config\.export\.program'):
    jax_export.read(folder, description)


def test_what_is_not_read_is_not_checked(copy):
  for path in [*copy.rglob('params/*'), copy / 'program.jaxexport', copy / 'README.md']:
    if path.is_file():
      path.unlink()
  rahf.load(copy)


@pytest.mark.parametrize(
  ('remove', 'changes', 'message'),
  [
    ((), {'step': 8}, 'model.json has changed since it was written, .*remove that fie'),
    (('weights',), {}, "is damaged .*'weights'"),
    (('files',), {}, 'has changed since'),
    (('sha256',), {'step': 8}, None),
    (('sha256',), {'files': {}}, None),
    (('sha256',), {'files': 3}, 'is damaged .*files must be an object'),
    (
      ('sha256',),
      {'files': {'x': {'bytes': 1}}},
      'is damaged .*an object of bytes, sh',
    ),
    (
      ('sha256',),
      {'files': {'x': {'bytes': 1, 'sha256': ''}}},
      'tokenizer.model is not part of the exported model',
    ),
  ],
)
def test_model_json(copy, remove, changes, message):
  edit(copy, remove, **changes)
  if not message:
    rahf.load(copy)
    return
  with pytest.raises(InputError, match=f'(?s){message}'):
    rahf.load(copy)


def test_json_may_be_spelled_differently(copy):
  path = copy / 'model.json'
  settings = json.loads(path.read_text())
  path.write_bytes(json.dumps(dict(reversed(settings.items()))).encode())
  rahf.load(copy)


def test_fingerprint(directory, copy):
  """It is that of results: not of a copy, of another program, or of a file unread."""
  first = model_directory.read_description(epath.Path(directory))
  params = model_files.read_params(epath.Path(directory), first)
  tokenizer = Tokenizer(directory / 'tokenizer.model')
  write_directory.write(epath.Path(copy), first, params, tokenizer)
  again = model_directory.read_description(epath.Path(copy))
  assert again.files != first.files
  assert again.fingerprint == first.fingerprint != ''
  params['vit']['cls'] = params['vit']['cls'] + 1
  write_directory.write(epath.Path(copy), first, params, tokenizer)
  changed = model_directory.read_description(epath.Path(copy))
  assert changed.fingerprint != first.fingerprint
  assert Description(first.model, 7, 40, 48).fingerprint == ''


def test_arrays_of_any_strides(tmp_path):
  path = epath.Path(tmp_path / 'x.safetensors')
  array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  model_files.write_params(
    path, {'a': {'b': array.transpose(2, 0, 1), 'c': array[0, 0]}}
  )
  found = safetensors.numpy.load_file(path)
  np.testing.assert_array_equal(found['a/b'], array.transpose(2, 0, 1))
  np.testing.assert_array_equal(found['a/c'], [0, 1, 2, 3])
