"""All readers of foreign files, by the path of the file."""

import json
import pathlib
import shutil
from collections.abc import Callable

import hostile
from etils import epath

import rahf
from rahf.config import default_config
from rahf.data.datasets.annotated import prepare_annotated
from rahf.data.datasets.joining.image_folder import ImageFolder, read_prompts
from rahf.data.datasets.rapidata import prepare_rapidata
from rahf.data.images.inputs import read_pixels
from rahf.data.labels import raw
from rahf.data.sources.source import open_source
from rahf.data.storage import manifest, prepared, records
from rahf.data.tokenizer import Tokenizer
from rahf.evaluation import samples
from rahf.fileio import parquet
from rahf.inference import results_folder
from rahf.pretrained import formats
from rahf.pretrained.torch_archive import open_torch
from rahf.pretrained.vit_npz import open_vit_npz
from rahf.workdir import ownership

T5 = {'model_type': 't5', 'vocab_size': 20, 'd_model': 8, 'd_kv': 2, 'num_heads': 3}
T5 |= {'d_ff': 12, 'num_layers': 1}


def read_all(path: pathlib.Path, prompts: str = '') -> None:
  """Reads every row of an input, like scoring."""
  source = open_source(str(path), prompts)
  for _, load in source.read(lambda number: True):
    item = load()
    if not item.error:
      read_pixels(item.image)


def read_prepared(folder: pathlib.Path) -> None:
  prepared.find(folder)
  manifest.check(folder)
  split = records.open_split(folder, 'train')
  split.word_counts()
  list(split.undamaged())
  Tokenizer(folder / 'tokenizer.model')


def read_config(path: pathlib.Path) -> None:
  ownership.check_workdir(epath.Path(path.parent), default_config())


def read_torch(path: pathlib.Path) -> None:
  for found in open_torch(path).values():
    found.read(lambda values: values)


def read_tar(path: pathlib.Path, table: pathlib.Path) -> None:
  folder = ImageFolder(path, table, ['a', 'trace'])
  list(folder.read(folder.locations))


def prepare_annotations(path: pathlib.Path) -> None:
  prepare_annotated(
    path.parent / 'out',
    name='x',
    annotations=path,
    images=path.parent,
    prompts=path,
  )


READERS: dict[str, Callable[[pathlib.Path], object]] = {
  'weights': formats.load,
  'release.npz': lambda path: open_vit_npz(path).weights['vit/cls'].read(),
  'rahf_model.pt': read_torch,
  'tokenizer.model': Tokenizer,
  't5x/checkpoint': lambda path: formats.load(path.parent),
  'hf/config.json': lambda path: formats.load(path.parent),
  'hf/model.safetensors': lambda path: formats.load(path.parent),
  'hf/pytorch_model.bin': lambda path: formats.load(path.parent),
  'hf/model.safetensors.index.json': lambda path: formats.load(path.parent),
  **{
    f'model/{name}': lambda path: rahf.load(path.parent)
    for name in ('model.json', 'model.safetensors', 'tokenizer.model')
  },
  **{
    f'data/{name}': lambda path: read_prepared(path.parent)
    for name in (
      *('dataset_info.json', 'manifest.json', 'train.index.npz', 'train.words.npz'),
      *('tiny-train.tfrecord-00000-of-00001', 'tokenizer.model'),
    )
  },
  'train.annotations.jsonl': lambda path: raw.read(epath.Path(path)),
  'annotations.jsonl': prepare_annotations,
  **{
    f'in/input{suffix}': read_all
    for suffix in ('.csv', '.tsv', '.jsonl', '.parquet', '.tar', '.tgz', '.tfrecord')
  },
  'images/a.png': lambda path: read_all(path.parent),
  'images/a.txt': lambda path: read_all(path.parent),
  **{
    f'prompts{suffix}': lambda path: list(read_prompts(path))
    for suffix in ('.csv', '.tsv', '.jsonl', '.parquet')
  },
  'joined.tar': lambda path: read_tar(path, path.parent / 'table.csv'),
  'rapidata/a.parquet': lambda path: prepare_rapidata(
    path.parent / 'out', name='x', files=path.parent
  ),
  'a.parquet': lambda path: list(parquet.light_rows(path, ['caption'])),
  'test-1.samples.jsonl': lambda path: samples.read(epath.Path(path)),
  'run/config.json': read_config,
  'results/manifest.json': lambda path: results_folder.Output(
    path.parent, results_folder.Settings('m', 'i', 3, 'none', 'jsonl'), about={}
  ),
}


def write_valid_files(
  folder: pathlib.Path, model: pathlib.Path, data: pathlib.Path
) -> None:
  """Writes valid files next to the hostile one."""
  for name in ('t5x', 'hf', 'in', 'images', 'rapidata', 'run', 'results'):
    (folder / name).mkdir()
  (folder / 'hf/config.json').write_text(json.dumps(T5))
  (folder / 'images/a.png').write_bytes(hostile.png())
  (folder / 'images/a.txt').write_text('a red circle')
  (folder / 'table.csv').write_text('uid,prompt\na,a red circle\ntrace,x\n')
  shutil.copytree(model, folder / 'model')
  shutil.copytree(data, folder / 'data')
  shutil.copy(model / 'tokenizer.model', folder / 'data')
