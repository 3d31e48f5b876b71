"""The commands attributes and sample: answers of CLIPs and tables, balanced samples."""

import collections
import csv
import json
import pathlib

import numpy as np
import pair_files
import pytest
from PIL import Image

import clip_directory
from rahf.data.__main__ import main
from rahf.data.attributes import table
from rahf.data.attributes.sample_command import file_name
from rahf.data.datasets.shapes.builder import prepare_shapes
from rahf.data.datasets.shapes.record import make_sample
from rahf.data.sources.source import open_source

QUESTIONS = {
  'colour': {'red': ['a red circle'], 'blue': ['blue squares']},
  'size': {'small': ['small'], 'large': ['large']},
}


def run(capsys, *arguments: object) -> str:
  """Runs the command successfully and returns what it prints."""
  assert main([*map(str, arguments)]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def fails(capsys, *arguments: object) -> str:
  """Runs the command, which must fail, and returns its error."""
  assert main([*map(str, arguments)]) == 2
  errors = capsys.readouterr().err.splitlines()
  (line,) = (line for line in errors if line.startswith('error: '))
  return line


@pytest.fixture(scope='module')
def clip(tmp_path_factory) -> pathlib.Path:
  return clip_directory.write(tmp_path_factory.mktemp('clip') / 'clip')


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
  """Six images with prompts, one in a subfolder; one file is damaged."""
  folder = tmp_path / 'in'
  (folder / 'sub').mkdir(parents=True)
  random = np.random.default_rng(0)
  for number in range(6):
    place = folder / 'sub' if number == 5 else folder
    pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(place / f'{number}.png')
    (place / f'{number}.txt').write_text(f'prompt {number}')
  return folder


@pytest.fixture
def shapes(tmp_path) -> pathlib.Path:
  """A prepared data set with the truth about its scenes as attributes."""
  folder = prepare_shapes(tmp_path / 'data', train=60, dev=10, test=10)
  with (folder / table.FILE).open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(('uid', 'groups', 'damaged'))
    for split, count in (('train', 60), ('dev', 10), ('test', 10)):
      for index in range(count):
        scene = make_sample(0, split, index).scene
        damaged = 'yes' if scene.damages else 'no'
        writer.writerow((f'{split}-{index:08d}', len(scene.groups), damaged))
  return folder


def test_a_clip_answers(images, clip, tmp_path, capsys):
  (images / 'broken.png').write_bytes(b'no image')
  (tmp_path / 'questions.json').write_text(json.dumps(QUESTIONS))
  out = tmp_path / 'attributes.csv'
  questions = f'--questions={tmp_path / "questions.json"}'
  printed = run(
    capsys, 'attributes', images, f'--clip={clip}', questions, f'--out={out}'
  )
  assert 'Left out: broken.png' in printed
  found = table.read(out)
  assert found.uids == (*(f'{n}.png' for n in range(5)), 'sub/5.png')
  assert {*found.answers} == {'colour', 'size'}
  assert all(0.5 <= sure <= 1 for sure in found.confidences['size'])

  # The same images, calibrated on answers that contradict the first ones.
  wrong = {'red': 'blue', 'blue': 'red'}
  known = [
    (uid, wrong[a]) for uid, a in zip(*found[:1], found.answers['colour'], strict=True)
  ]
  (tmp_path / 'known.csv').write_text(
    'uid,colour\n' + ''.join(f'{uid},{a}\n' for uid, a in known) + 'other,red\n'
  )
  again = tmp_path / 'again.csv'
  printed = run(
    capsys,
    'attributes',
    images,
    f'--clip={clip}',
    questions,
    f'--out={again}',
    f'--calibrate={tmp_path / "known.csv"}',
    '--temperature=size=20',
  )
  assert 'colour: temperature 148 (the limit: the images are too few, or' in printed
  now = table.read(again)
  assert now.answers == found.answers
  assert (now.confidences['colour'] < found.confidences['colour']).all()
  assert (now.confidences['size'] < found.confidences['size']).all()


def test_a_table_answers(images, tmp_path, capsys):
  rows = [f'{n}.png,{"cat" if n % 2 else ""}' for n in range(5)] + ['sub/5.png,dog']
  (tmp_path / 'vqa.csv').write_text('\n'.join(['uid,animal', *rows, 'more.png,ape']))
  out = tmp_path / 'out.csv'
  printed = run(
    capsys, 'attributes', images, f'--table={tmp_path / "vqa.csv"}', f'--out={out}'
  )
  assert '| animal   | unknown |      3 | 50.0% |' in printed
  assert table.read(out).answers['animal'] == ('', 'cat', '', 'cat', '', 'dog')
  (tmp_path / 'other.csv').write_text('uid,animal\nx,cat\n')
  message = fails(
    capsys, 'attributes', images, f'--table={tmp_path / "other.csv"}', '--out=b.csv'
  )
  assert "no attributes of 6 of 6 images, the first '0.png'; it has 'x'; it" in message


def test_a_sample_of_shapes_with_planted_attributes(shapes, tmp_path, capsys):
  out = tmp_path / 'sample'
  quotas = ('--quota=groups=even', '--quota=damaged=yes:1,no:1')
  printed = run(capsys, 'sample', shapes, *quotas, '--count=20', f'--out={out}')
  drawn = table.read(out / 'attributes.csv')
  assert collections.Counter(drawn.answers['groups']) == {'1': 10, '2': 10}
  assert collections.Counter(drawn.answers['damaged']) == {'yes': 10, 'no': 10}
  source = open_source(str(out / 'images'), str(out / 'prompts.csv'))
  found = {load().uid: load() for _, load in source.read(lambda _: True)}
  assert found.keys() == {*drawn.uids}
  for uid, item in found.items():
    split, number = uid.removesuffix('.png').split('-')
    sample = make_sample(0, split, int(number))
    assert item.prompt == sample.prompt.text
  report = (out / 'report.md').read_text()
  assert report in printed
  assert '20 of 80 images, drawn with seed 0.' in report
  assert Image.open(out / 'shares.png').width == 680
  # What was sampled can be asked about again.
  again = tmp_path / 'again.csv'
  table_of_sample = f'--table={out / "attributes.csv"}'
  run(capsys, 'attributes', out / 'images', table_of_sample, f'--out={again}')
  assert collections.Counter(table.read(again).answers['groups']) == {'1': 10, '2': 10}


def test_images_without_attributes_are_not_drawn(images, tmp_path, capsys):
  (tmp_path / 'a.csv').write_text('uid,kind\n1.png,x\n3.png,x\nsub/5.png,y\n')
  options = (f'--attributes={tmp_path / "a.csv"}', '--quota=kind=x:1', '--count=2')
  printed = run(capsys, 'sample', images, *options, f'--out={tmp_path / "out"}')
  assert '2 of 3 images, drawn' in printed
  assert '3 others have no attributes.' in printed
  assert 'no prompt' not in printed
  assert {one.name for one in (tmp_path / 'out/images').iterdir()} == {'1.png', '3.png'}
  (tmp_path / 'a.csv').write_text('uid,kind\nother,x\n')
  message = fails(capsys, 'sample', images, *options, f'--out={tmp_path / "more"}')
  assert 'no attributes of 6 of 6 images' in message


def test_images_without_prompts_are_not_drawn(images, tmp_path, capsys):
  (images / '1.txt').unlink()
  (images / '2.txt').write_text(' ')
  rows = [f'{n}.png,x' for n in range(5)] + ['sub/5.png,x']
  (tmp_path / 'a.csv').write_text('\n'.join(['uid,kind', *rows]))
  options = (f'--attributes={tmp_path / "a.csv"}', '--quota=kind=even', '--count=4')
  printed = run(capsys, 'sample', images, *options, f'--out={tmp_path / "out"}')
  assert '2 others have no prompt, or no image.' in printed
  names = {one.name for one in (tmp_path / 'out/images').iterdir()}
  assert names == {'0.png', '3.png', '4.png', 'sub%2F5.png'}


def test_a_prepared_set_is_found_below_and_not_written_over(shapes, capsys, tmp_path):
  table_file = f'--table={shapes / "attributes.csv"}'
  above = shapes.parents[1]
  assert 'attributes.csv exists; delete it' in fails(
    capsys, 'attributes', above, table_file
  )
  out = tmp_path / 'again.csv'
  run(capsys, 'attributes', above, table_file, f'--out={out}')
  assert len(table.read(out).uids) == 80
  # The table does not keep the folder from being scored.
  assert open_source(str(shapes)).rows == 80


def test_images_of_pickapic(tmp_path, capsys):
  """Both images of each pair, once each, whatever the number of comparisons."""
  shared = pair_files.row(1, image_0_uid='0-0', jpg_0=pair_files.picture(0))
  pair_files.write(
    tmp_path / 'pairs/train-0.parquet', [pair_files.row(n) for n in range(3)] + [shared]
  )
  source = open_source(str(tmp_path / 'pairs'))
  items = [(place, load()) for place, load in source.read(lambda n: n != 2)]
  assert [place for place, _ in items] == [0, 1, 3, 4, 5, 6, 7]
  assert [item.uid for _, item in items] == [
    *('0-0', '0-1', '1-1', '2-0', '2-1', '0-0', '1-1')
  ]
  assert items[2][1].prompt == 'prompt 1'
  assert items[2][1].image == pair_files.picture(3)
  rows = [f'{n}-{side},{"ab"[side]}' for n in range(3) for side in (0, 1)]
  (tmp_path / 'a.csv').write_text('\n'.join(['uid,side', *rows]))
  options = ('--count=4', f'--attributes={tmp_path / "a.csv"}', '--quota=side=a:1,b:3')
  run(capsys, 'sample', tmp_path / 'pairs', *options, f'--out={tmp_path / "out"}')
  drawn = table.read(tmp_path / 'out/attributes.csv')
  assert collections.Counter(drawn.answers['side']) == {'a': 1, 'b': 3}
  # Row k of picture(k) is k + 1 pixels wide.
  for uid in drawn.uids:
    number, side = map(int, pathlib.Path(uid).stem.split('-'))
    assert Image.open(tmp_path / 'out/images' / uid).width == 2 * number + side + 1


def test_the_real_sample(assets, tmp_path, capsys):
  """18 real images in Pick-a-Pic's files."""
  images = assets / 'richhf_sample/pickapic/data'
  source = open_source(str(images))
  uids = {load().uid for _, load in source.read(lambda _: True)}
  rows = [
    f'{uid},{"photo" if n % 3 else "drawing"}' for n, uid in enumerate(sorted(uids))
  ]
  (tmp_path / 'a.csv').write_text('\n'.join(['uid,style', *rows]))
  options = ('--quota=style=even', f'--attributes={tmp_path / "a.csv"}')
  run(capsys, 'sample', images, *options, '--count=6', f'--out={tmp_path / "six"}')
  assert len([*(tmp_path / 'six/images').iterdir()]) == 6
  message = fails(
    capsys, 'sample', images, *options, '--count=500', f'--out={tmp_path / "many"}'
  )
  assert 'cannot meet the quotas for 500: style: drawing lacks' in message
  assert not (tmp_path / 'many').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['attributes', 'IN', '--out=a.csv'], 'give either --clip or --table'),
    (['attributes', 'IN', '--clip=c'], '--out is missing'),
    (
      ['attributes', 'IN', '--table=t', '--calibrate=k', '--out=a.csv'],
      '--calibrate is for --clip',
    ),
    (['attributes', 'IN', '--clip=nowhere', '--out=a.csv'], 'nowhere does not exist'),
    (
      ['attributes', 'IN', '--clip=c', '--temperature=category=0', '--out=a.csv'],
      "--temperature 'category=0': give NAME=NUMBER",
    ),
    (
      ['sample', 'IN', '--quota=a=even', '--count=1', '--out=o'],
      '--attributes is missing',
    ),
  ],
)
def test_mistakes(images, monkeypatch, tmp_path, capsys, arguments, message):
  monkeypatch.chdir(tmp_path)
  arguments = [str(images) if one == 'IN' else one for one in arguments]
  assert message in fails(capsys, *arguments)


def test_file_names_of_uids():
  assert file_name('0001', '.png') == '0001.png'
  assert file_name('sub/a b.png', '.png') == 'sub%2Fa b.png'
  assert file_name('../x', '.jpg') == '%2E.%2Fx.jpg'
  assert file_name('Кот', '.png') == 'Кот.png'
  long, other = file_name('x' * 300, '.png'), file_name('x' * 301, '.png')
  assert len(long) == len(other) == 20
  assert long != other
  assert file_name('v1.5', '.jpg') == 'v1.5.jpg'
