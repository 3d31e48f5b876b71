"""Hostile files never run code, exhaust memory or escape a folder; each is refused with
an `InputError`, or does no harm."""

import functools
import gzip
import json
import os
import pathlib
import re
import resource
import shutil
import time
from collections.abc import Callable

import hostile
import numpy as np
import pytest
import readers
from etils import epath
from util import make_record, write_split

import rahf
from rahf.config.settings import DECODERS
from rahf.data.datasets.annotated import prepare_annotated
from rahf.data.datasets.joining.image_folder import ImageFolder
from rahf.data.images.inputs import read_pixels
from rahf.data.sources.source import open_source as open_input
from rahf.data.storage import manifest, records
from rahf.errors import InputError
from rahf.inference import model_directory
from rahf.service import pages
from served import write_model

# Limits: seconds for one file, and bytes of additional memory for all of them.
TIME, MEMORY = 10, 600 * 2**20


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  return tmp_path_factory.mktemp('hostile')


@pytest.fixture(scope='module')
def files(place):
  return hostile.files(place / 'trace')


@pytest.fixture(scope='module')
def model(place):
  """A model directory whose description may be changed."""
  folder = write_model(place)
  path = folder / 'model.json'
  settings = json.loads(path.read_text())
  del settings['sha256']
  path.write_text(json.dumps(settings, indent=2, ensure_ascii=False))
  return folder


@pytest.fixture(scope='module')
def data(place):
  folder = place / 'data'
  folder.mkdir()
  write_split(folder, 'train', [make_record(number) for number in range(3)])
  records.open_split(folder, 'train').word_counts()
  shards = manifest.describe_all(folder)
  manifest.write(folder, shards)
  return folder


def attempt(function: Callable[[], object]) -> str:
  """Calls a function that may raise InputError; returns its message."""
  start = time.monotonic()
  message = ''
  try:
    function()
  except InputError as error:
    message = str(error)
    assert message
    assert len(message) < 5_000, message[:500]
  assert time.monotonic() - start < TIME
  return message


def listed(folder: pathlib.Path) -> set[pathlib.Path]:
  return set(folder.rglob('*'))


@pytest.mark.parametrize('reader', readers.READERS)
def test_hostile_files_at_every_reader(place, files, model, data, tmp_path, reader):
  """Every kind of hostile file, wherever a file is read."""
  readers.write_valid_files(tmp_path, model, data)
  path = tmp_path / reader
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  refused = set()
  for name, content in files.items():
    path.write_bytes(content)
    inside = listed(tmp_path)
    try:
      message = attempt(functools.partial(readers.READERS[reader], path))
    except Exception as error:
      raise AssertionError(f'{name} as {reader}: {error!r:.300}') from error
    refused |= {name} if message else set()
    made = {file.name for file in listed(tmp_path) - inside}
    assert made <= {'.lock', '.cache'}, name
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert (after - before) * 1024 < MEMORY
  traces = (folder / 'trace' for folder in (place, *tmp_path.parents[:4]))
  assert not any(trace.exists() for trace in traces)
  # Bad rows become errors of their own, and damaged caches are rebuilt.
  if not reader.startswith(('in/', 'images/')) and 'npz' not in reader.split('/')[-1]:
    assert {'pickle 4', 'npz of objects', 'torch'} <= refused


# Model directories


def test_every_value_of_a_description_replaced(model, long):
  """Replaces or removes each leaf and object; a sample, without --long."""
  path = model / 'model.json'
  whole = json.loads(path.read_text())
  assert model_directory.read_description(epath.Path(model))
  cases = [
    (place, value)
    for place in hostile.leaves(whole)
    for value in [(), *((leaf,) for leaf in hostile.ODD_LEAVES)]
  ]
  if not long:
    chosen = np.random.default_rng(time.time_ns()).choice(len(cases), 500)
    cases = [cases[number] for number in chosen]
  refused = 0
  try:
    for place, value in cases:
      path.write_text(json.dumps(hostile.changed(whole, place, *value)))
      try:
        refused += bool(attempt(lambda: check_description(model)))
      except Exception as error:
        raise AssertionError(f'{place} = {value!r:.80}: {error!r:.300}') from error
  finally:
    path.write_text(json.dumps(whole))
  print(f'{len(cases)} descriptions, {refused} of them refused')
  assert 0.4 * len(cases) < refused < len(cases)


def check_description(model: pathlib.Path) -> None:
  """Checks that an accepted description can be used and displayed."""
  found = model_directory.read_description(epath.Path(model))
  assert type(found.step) is int
  assert 0 < found.target_length <= 2**14
  assert found.decoder in DECODERS
  assert hostile.HTML not in pages.home(found, 1).html


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      lambda text: text.replace('"step": 7', '"step": 7, "step": 8'),
      'step. occurs twice',
    ),
    (lambda text: text.replace('0.25', 'NaN'), 'NaN is not a valid JSON number'),
    (lambda text: text.replace('0.25', '1e999'), '1e999 is too large'),
    (lambda text: text.replace('"step": 7', '"step": 7.0'), 'step = 7.0 must be'),
    (lambda text: text.replace('"format": 1', '"format": 9'), 'has format 9'),
    (lambda text: text.replace('"layers": 1', '"layers": 9'), 'does not fit the'),
    (lambda text: text.replace('"mlp": 16', '"mlp": 131072'), 'does not fit the'),
    (lambda text: text.replace('"layers": 1', '"layers": 999999999'), 'at most 200'),
    (lambda text: text + ' ' * 2**24, 'more than 16777216 bytes'),
  ],
)
def test_false_descriptions(model, tmp_path, change, message):
  folder = shutil.copytree(model, tmp_path / 'model')
  path = folder / 'model.json'
  text = change(path.read_text())
  assert text != path.read_text()
  path.write_text(text)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert re.search(message, attempt(lambda: rahf.load(folder)))
  after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  assert (after - before) * 1024 < MEMORY


# Names and links


NAMES = (
  '../../x',
  '/tmp/x',
  '..',
  'a/../../x',
  'a\\..\\x',
  '~/x',
  'ü\u202e',
  ' ',
  'C:x',
)


def test_links_and_devices_in_archives(tmp_path):
  sound = {f'{name}.png': hostile.png() for name in ('a', *NAMES)}
  (tmp_path / 'x.tar').write_bytes(hostile.tar(sound, hostile.LINKS))
  table = tmp_path / 'table.csv'
  table.write_text('uid,prompt\na,a red circle\nsymbolic,x\nhard,x\n')
  wanted = ['a', *(name.split('.')[0] for name in hostile.LINKS)]
  folder = ImageFolder(tmp_path / 'x.tar', table, wanted)
  assert dict(folder.read(folder.locations)) == {'a': hostile.png()}
  inside = listed(tmp_path)
  readers.read_all(tmp_path / 'x.tar')
  assert listed(tmp_path) == inside


def test_links_and_devices_in_folders(tmp_path):
  """A link to an image is an image; endless devices are not."""
  folder = tmp_path / 'images'
  folder.mkdir()
  (tmp_path / 'outside.png').write_bytes(hostile.png())
  (folder / 'link.png').symlink_to(tmp_path / 'outside.png')
  (folder / 'loop.png').symlink_to(folder / 'loop.png')
  (folder / 'zero.png').symlink_to('/dev/zero')
  (folder / 'away').symlink_to('/')
  os.mkfifo(folder / 'pipe.png')
  for path in folder.glob('*.png'):
    path.with_suffix('.txt').write_text('a red circle')
  (folder / 'link.txt').unlink()
  (folder / 'link.txt').symlink_to('/dev/zero')
  found = {}
  for _, load in open_input(str(folder)).read(lambda number: True):
    item = load()
    found[item.uid] = item.error or attempt(lambda item=item: read_pixels(item.image))
  assert found.keys() == {'link.png', 'loop.png', 'zero.png', 'pipe.png'}
  assert 'not a regular file' in found['zero.png']
  assert 'not a regular file' in found['pipe.png']
  assert 'cannot be read' in found['loop.png']
  assert 'not a regular file' in found['link.png']
  (tmp_path / 'table.csv').write_text('uid,prompt\nlink,x\nzero,x\npipe,x\n')
  joined = ImageFolder(folder, tmp_path / 'table.csv', ['link', 'zero', 'pipe'])
  assert dict(joined.read(joined.locations)) == {'link': hostile.png()}


def test_large_members_are_skipped(tmp_path):
  """They would be small if compressed."""
  path = tmp_path / 'x.tgz'
  text = bytes(2**20 + 1)
  whole = hostile.tar({'a.png': hostile.png(), 'a.txt': text, 'b.png': hostile.png()})
  path.write_bytes(gzip.compress(whole))
  items = [load() for _, load in open_input(str(path)).read(lambda number: True)]
  assert [item.prompt for item in items] == [None, None]
  assert [item.image for item in items] == [hostile.png()] * 2


@pytest.mark.parametrize('kind', ['tar', 'folder'])
def test_uids_are_not_paths(tmp_path, kind):
  """They name records, but not files."""
  home = tmp_path / 'a/b/c'
  images = home / 'images'
  images.mkdir(parents=True)
  (images / 'a.png').write_bytes(hostile.png())
  if kind == 'tar':
    data = hostile.tar({f'{name}.png': hostile.png() for name in ('a', *NAMES)})
    (home / 'images.tar').write_bytes(data)
  rows = [{'uid': name, 'scores': {'overall': 3}} for name in ('a', *NAMES)]
  lines = '\n'.join(map(json.dumps, rows))
  (home / 'annotations.jsonl').write_text(lines)
  prompts = [{'uid': name, 'prompt': hostile.HTML} for name in ('a', *NAMES)]
  (home / 'prompts.jsonl').write_text('\n'.join(map(json.dumps, prompts)))
  before = listed(tmp_path)
  directory, _ = prepare_annotated(
    home / 'out',
    name='x',
    annotations=home / 'annotations.jsonl',
    images=images if kind == 'folder' else home / 'images.tar',
    prompts=home / 'prompts.jsonl',
    dev=0,
    test=0,
  )
  made = listed(tmp_path) - before
  assert made
  assert all(path.is_relative_to(home / 'out') for path in made)
  assert records.open_split(directory, 'train')[0].uid == 'a'


@pytest.mark.parametrize(
  'change',
  [
    {'name': '../../x'},
    {'name': '/etc/x'},
    {'fileFormat': '/../../x'},
    {'splits': [{'name': '../x', 'shardLengths': ['1']}]},
    {'splits': [{'name': 'train', 'shardLengths': ['1'] * 3 + ['x']}]},
    {'splits': {'train': 3}},
  ],
)
def test_shards_are_in_their_folder(data, tmp_path, change):
  folder = shutil.copytree(data, tmp_path / 'data')
  path = folder / 'dataset_info.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  for read in (records.open_split, lambda f, _: manifest.describe_all(f)):
    assert 'dataset_info.json cannot be read' in attempt(
      lambda r=read: r(folder, 'train')
    )
  path = folder / 'manifest.json'
  (folder / 'dataset_info.json').write_bytes((data / 'dataset_info.json').read_bytes())
  path.write_text(
    '{"shards": {"../x-train.tfrecord": {"records": 1, "bytes": 1, '
    '"sha256": ""}}, "settings": {}}'
  )
  assert 'is not the name of a shard' in attempt(lambda: manifest.check(folder))
