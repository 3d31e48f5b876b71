"""The same images and prompts in every kind of input, and runs on them."""

import io
import json
import pathlib
import subprocess
import sys
import tarfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import util

import runs
from rahf import infer
from rahf.data.images import codec
from rahf.infer import Job
from rahf.runtime.preemption import Interruption

COUNT = 11
# A part is a batch of one image on each of the tests' eight devices.
PART = 8


def prompt_of(number: int) -> str:
  return f'{"a red circle, " * (number % 3)}a blue square "{number}"\nin red'


def image_of(number: int) -> bytes:
  random = np.random.default_rng(number)
  size = (20 + number % 9, 30 - number % 13, 3)
  return codec.encode_png(random.integers(0, 256, size, np.uint8))


def write_folder(
  folder: pathlib.Path, count: int = COUNT, prompts=True
) -> pathlib.Path:
  """Writes 000.png and so on, and their prompts as 000.txt and so on."""
  for number in range(count):
    path = folder / f'{number:03d}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image_of(number))
    if prompts:
      path.with_suffix('.txt').write_text(prompt_of(number))
  return folder


def write_table(path: pathlib.Path, rows: list[dict]) -> pathlib.Path:
  """Writes a table in the format of its suffix."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == '.parquet':
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
  elif path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n\n' for row in rows))
  else:
    comma = {'.csv': ',', '.tsv': '\t'}[path.suffix]
    # Quoted, since quotes are allowed in TSV too.
    lines = [comma.join(f'"{name}"' for name in rows[0])]
    for row in rows:
      cells = (str(value).replace('"', '""') for value in row.values())
      lines.append(comma.join(f'"{cell}"' for cell in cells))
    path.write_text('\n'.join(lines), encoding='utf-8-sig')
  return path


def write_tar(path: pathlib.Path, files: list[tuple[str, bytes]], mode='w'):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, mode) as tar:
    for name, data in files:
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return path


def samples(numbers, suffix='.txt') -> list[tuple[str, bytes]]:
  files = []
  for number in numbers:
    prompt = prompt_of(number)
    text = json.dumps({'caption': prompt}) if suffix == '.json' else prompt
    files.append((f'x/{number:03d}{suffix}', text.encode()))
    files.append((f'x/{number:03d}.png', image_of(number)))
  return files


def table_rows(folder: pathlib.Path, image='image', prompt='prompt') -> list[dict]:
  write_folder(folder, prompts=False)
  return [
    {image: f'{folder.name}/{number:03d}.png', prompt: prompt_of(number)}
    for number in range(COUNT)
  ]


def make_input(kind: str, folder: pathlib.Path) -> tuple[pathlib.Path | str, str]:
  """Writes the images as one kind of input; returns --input and --prompts."""
  numbers = range(COUNT)
  match kind:
    case 'folder':
      return write_folder(folder / 'images'), ''
    case 'folder and table':
      rows = [{'uid': f'{n:03d}', 'prompt': prompt_of(n)} for n in reversed(numbers)]
      table = write_table(folder / 'images/prompts.csv', rows)
      return write_folder(folder / 'images', prompts=False), str(table)
    case '.csv' | '.tsv' | '.jsonl' | '.parquet':
      return write_table(folder / f't{kind}', table_rows(folder / 'images')), ''
    case 'other columns':
      rows = table_rows(folder / 'images', 'file_name', 'caption')
      return write_table(folder / 't.csv', rows), ''
    case 'parquet of bytes' | 'parquet of Hugging Face':
      pack = (lambda b: b) if kind.endswith('bytes') else (lambda b: {'bytes': b})
      rows = [{'image': pack(image_of(n)), 'prompt': prompt_of(n)} for n in numbers]
      return write_table(folder / 't.parquet', rows), ''
    case 'tar':
      return write_tar(folder / 't.tar', samples(numbers)), ''
    case 'tar.gz of JSON':
      return write_tar(folder / 't.tar.gz', samples(numbers, '.json'), 'w:gz'), ''
    case 'shards':
      for part, members in enumerate(np.array_split(numbers, 3)):
        write_tar(folder / f'shards/{part}.tar', samples(members))
      return folder / 'shards', ''
    case 'pattern':
      write_tar(folder / 'a-1.tar', samples(range(5)))
      write_tar(folder / 'a-2.tar', samples(range(5, COUNT)))
      write_tar(folder / 'b-1.tar', samples([3]))
      return f'{folder}/a-*.tar', ''
    case 'prepared data set':
      records = [
        util.make_record(n, prompt=prompt_of(n))._replace(image=image_of(n))
        for n in numbers
      ]
      util.write_split(folder / 'data', 'test', records, shards=2)
      return folder / 'data', ''
    case 'TFRecords of others':
      features = tf.train.Features, tf.train.Feature, tf.train.BytesList
      with tf.io.TFRecordWriter(str(folder / 'x.tfrecord')) as writer:
        for n in numbers:
          values = {'image/encoded': image_of(n), 'caption': prompt_of(n).encode()}
          example = tf.train.Example(
            features=features[0](
              feature={
                name: features[1](bytes_list=features[2](value=[value]))
                for name, value in values.items()
              }
            )
          )
          writer.write(example.SerializeToString())
      return folder / 'x.tfrecord', ''
  raise ValueError(kind)


def run(job: Job) -> tuple[int, list[dict]]:
  """Returns the exit status and the rows."""
  status = infer.infer(job, Interruption())
  path = pathlib.Path(job.output) / f'results.{job.format}'
  if job.format == 'parquet':
    return status, pq.read_table(path).to_pylist()
  return status, [json.loads(line) for line in path.read_text().splitlines()]


def assert_rows(rows: list[dict], expected) -> None:
  assert [row['prompt'] for row in rows] == [one.prompt for one in expected]
  for row, one in zip(rows, expected, strict=True):
    assert row['error'] is None
    assert (row['height'], row['width']) == one.size
    assert {n: row[n] for n in one.scores} == pytest.approx(one.scores, abs=1e-5)
    words = [(word['word'], word['p_misaligned']) for word in row['keywords']]
    assert [word for word, _ in words] == [word for word, _ in one.keywords]
    p = [None if np.isnan(p) else p for _, p in one.keywords]
    assert [p for _, p in words] == pytest.approx(p, abs=1e-5)
    assert row['misaligned'] == one.misaligned
    assert row['truncated'] == one.truncated


COMMAND = """
import sys, time
for name in sys.argv.pop(1).split():
  sys.modules[name] = None
from absl import app
from rahf import infer, main
from rahf.inference import results_folder
infer.PART_ROWS = 8
write = results_folder.Output.write_part
def write_slowly(*arguments):
  write(*arguments)
  time.sleep({seconds})
results_folder.Output.write_part = write_slowly
app.run(main.main, flags_parser=main.parse_flags)
"""


def start(
  directory: pathlib.Path, *arguments: str, blocked: str = '', seconds=0, **environment
) -> subprocess.Popen:
  """Starts the command with small parts, some modules blocked, and slowed down."""
  code = COMMAND.format(seconds=seconds)
  flags = ('--mode=infer', f'--model={directory}', '--batch_size=1', *arguments)
  return subprocess.Popen(
    [sys.executable, '-c', code, blocked, *flags],
    cwd=runs.ROOT,
    env=runs.os.environ | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for_parts(process: subprocess.Popen, out: pathlib.Path, count: int) -> None:
  """Waits until `count` parts exist; the process must still run."""
  while len([*(out / 'parts').glob('*.jsonl')]) < count:
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.02)
