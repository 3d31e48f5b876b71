"""`--mode=generate`: the folder that it writes, its table, and what it refuses."""

import csv
import json

import pytest
from PIL import Image

import tiny_muse
from rahf.data.sources.source import open_source
from rahf.errors import InputError
from rahf.generate import Job, generate
from rahf.inference.image_generator import Request
from rahf.learning.image_requests import read_requests
from rahf.runtime.preemption import Interruption


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  """A model directory with random parameters."""
  folder = tmp_path_factory.mktemp('models') / 'muse'
  tiny_muse.write(folder)
  return folder


def job(model, prompts, output, **changes) -> Job:
  fields = dict(
    model=str(model),
    input=str(prompts),
    output=str(output),
    images_per_prompt=2,
    seed=5,
    negative_prompt='',
    batch_size=4,
    steps=0,
    guidance=0.0,
  )
  return Job(**fields | changes)


def images(folder) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in (folder / 'images').iterdir()}


def test_a_folder_that_scorers_take(model, tmp_path, capsys):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\na blue cross\na green ring\n')
  output = tmp_path / 'out'
  assert generate(job(model, prompts, output), Interruption()) == 0
  assert '6 images' in capsys.readouterr().out
  rows = [*csv.DictReader((output / 'images.csv').open())]
  assert [row['prompt'] for row in rows[1:4]] == [
    *('a red circle', 'a blue cross', 'a blue cross')
  ]
  assert [(row['seed'], row['number']) for row in rows[:2]] == [('5', '0'), ('5', '1')]
  source = open_source(str(output / 'images.csv'), extra='original')
  items = [load() for _, load in source.read(lambda _: True)]
  assert [item.extra for item in items] == [row['prompt'] for row in rows]
  assert all(item.image and not item.error for item in items)
  assert Image.open(output / 'contact_sheet.png').height > 3 * 128

  # What is missing after a stop is drawn again, bit for bit, and nothing else.
  before = images(output)
  kept = output / 'images' / '0-0.png'
  written = kept.stat().st_mtime_ns
  for name in ('images/1-1.png', 'images/2-0.png', 'images.csv'):
    (output / name).unlink()
  generate(job(model, prompts, output), Interruption())
  assert images(output) == before
  assert kept.stat().st_mtime_ns == written
  assert (output / 'images.csv').exists()

  with pytest.raises(InputError, match=r'other settings \(images, requests\)'):
    generate(job(model, prompts, output, images_per_prompt=1), Interruption())
  with pytest.raises(InputError, match=r'other settings \(sampling\)'):
    generate(job(model, prompts, output, steps=2), Interruption())


def test_tables_with_seeds_and_file_names(tmp_path):
  table = tmp_path / 'prompts.csv'
  table.write_text(
    'original,template,prompt,seed,file_name\n'
    'a circle,0,a circle,3,images/0-0-3.png\n'
    'a circle,1,"a circle, sharp",,images/0-1-4.png\n'
  )
  first, second = read_requests(table, 1, 9)
  assert first.request == Request('a circle', seed=3)
  assert second.request == Request('a circle, sharp', seed=9)
  assert second.original == 'a circle'
  assert second.file_name == 'images/0-1-4.png'


@pytest.mark.parametrize(
  ('text', 'count', 'message'),
  [
    ('prompt,seed\na,x\n', 1, r"line 2: seed is 'x'; give a whole number"),
    ('prompt,seed\na,-1\n', 1, "line 2: seed is '-1'; give a whole number"),
    ('prompt,seed\n ,1\n', 1, "line 2: the prompt is ' '"),
    ('text\na\n', 1, 'no column prompt'),
    ('prompt\n', 1, 'has no prompts'),
    ('prompt,file_name\na,x.png\nb,x.png\n', 1, "'x.png' occurs twice"),
    ('prompt,file_name\na,x.png\nb,./x.png\n', 1, 'occurs twice'),
    ('prompt,file_name\na,x.png\nb,x.png/y.png\n', 1, 'x.png is a file and a folder'),
    (
      'prompt,file_name\na,contact_sheet.png\n',
      1,
      'line 2: .* begins like a file of the results',
    ),
    (f'prompt,file_name\na,{"x" * 250}.png\n', 1, 'at most 200 bytes'),
    ('prompt,file_name\na,../x.png\n', 1, 'must be a relative path'),
    ('prompt,file_name\na,x.png\n', 2, 'leave out --images_per_prompt'),
  ],
)
def test_tables_that_are_refused(tmp_path, text, count, message):
  table = tmp_path / 'prompts.csv'
  table.write_text(text)
  with pytest.raises(InputError, match=message):
    read_requests(table, count, 0)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'original': 5}, 'its original is 5; give a text'),
    ({'original': ['a']}, r"its original is \['a'\]; give a text"),
    ({'original': '\ud800'}, 'its original .* is not valid Unicode'),
    ({'seed': 1.5}, 'seed is 1.5; give a whole number'),
    ({'seed': True}, 'seed is True'),
    ({'seed': '1_0'}, "seed is '1_0'"),
    ({'seed': float('inf')}, 'seed is inf'),
    ({'file_name': 7}, 'its file_name is 7'),
    ({'file_name': '\ud800.png'}, 'its file_name .* is not valid Unicode'),
    ({'file_name': 'a\0.png'}, 'none of which is zero'),
    ({'file_name': '.lock/a.png'}, 'begins like a file of the results'),
    ({'file_name': f'{"x" * 250}/a.png'}, 'at most 200 bytes'),
  ],
)
def test_values_that_are_refused(tmp_path, values, message):
  table = tmp_path / 'prompts.jsonl'
  table.write_text(json.dumps({'prompt': 'a'} | values))
  with pytest.raises(InputError, match=f'line 1.*: .*{message}'):
    read_requests(table, 1, 0)


def test_seeds_that_are_whole(tmp_path):
  table = tmp_path / 'prompts.jsonl'
  rows = [{'prompt': 'a', 'seed': seed} for seed in (3, 3.0, '3', ' 3 ')]
  table.write_text('\n'.join(map(json.dumps, rows)))
  assert [one.request.seed for one in read_requests(table, 1, 0)] == [3] * 4


def test_images_that_are_cut_off_are_drawn_again(model, tmp_path):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\na blue cross\n')
  output = tmp_path / 'out'
  generate(job(model, prompts, output), Interruption())
  before = images(output)
  (output / 'images' / '0-0.png').write_bytes(before['0-0.png'][:100])
  (output / 'images' / '1-1.png').write_bytes(b'')
  generate(job(model, prompts, output), Interruption())
  assert images(output) == before


def test_a_negative_prompt_that_is_no_text(model, tmp_path):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\n')
  with pytest.raises(InputError, match=r'--negative_prompt .* is not valid Unicode'):
    generate(
      job(model, prompts, tmp_path / 'out', negative_prompt='\udcff'), Interruption()
    )


@pytest.mark.parametrize(
  'change',
  [
    {'batch_size': 0},
    {'images_per_prompt': 0},
    {'seed': -1},
    {'steps': -1},
    {'guidance': 0.5},
  ],
)
def test_numbers_that_are_refused(model, tmp_path, change):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\n')
  ((name, value),) = change.items()
  with pytest.raises(InputError, match=f'--{name}={value} must'):
    generate(job(model, prompts, tmp_path / 'out', **change), Interruption())
  assert not (tmp_path / 'out').exists()


def test_a_model_that_makes_no_images(tmp_path):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\n')
  with pytest.raises(InputError, match='is not an image generator'):
    generate(job(tmp_path, prompts, tmp_path / 'out'), Interruption())


def test_outputs_that_are_refused(model, tmp_path):
  prompts = tmp_path / 'prompts.txt'
  prompts.write_text('a red circle\n')
  output = tmp_path / 'out'
  output.mkdir()
  (output / 'mine').touch()
  with pytest.raises(InputError, match='was not written by this command'):
    generate(job(model, prompts, output), Interruption())
  assert json.loads((model / 'generator.json').read_text())['step'] == 1
