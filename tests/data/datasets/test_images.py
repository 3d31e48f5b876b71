"""Images and prompts of any input, as a data set without labels."""

import io
import itertools
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encode
from PIL import Image
from util import make_pixels, train_model

from rahf.data import schema
from rahf.data.__main__ import main
from rahf.data.datasets import images
from rahf.data.datasets.images import prepare_images
from rahf.data.images import codec
from rahf.data.pipeline.batches import eval_batches, train_batches
from rahf.data.pipeline.decoding import PipelineOptions
from rahf.data.storage.records import open_split
from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError

PROMPTS = {'a.png': 'a red cat', 'm/b.jpg': 'two dogs', 'c.webp': 'a "blue", cow'}
FILES = {
  name: encode(Image.fromarray(make_pixels(number)), kind)
  for number, (name, kind) in enumerate(zip(PROMPTS, codec.FORMATS, strict=False))
}


def prepare(input, out, **changes):
  settings = {'name': 'mine', 'input': str(input), 'dev': 0, 'test': 0} | changes
  return prepare_images(out, **settings)


def triples(directory, split='train'):
  """Returns uid, image and prompt of each record."""
  records = open_split(directory, split)
  return sorted((record.uid, record.image, record.prompt) for record in records)


def side_texts(folder):
  for name, data in FILES.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.with_suffix('.txt').write_text(PROMPTS[name])
  return folder


def jsonl(folder):
  table = side_texts(folder) / 'table.jsonl'
  rows = ({'path': name, 'caption': prompt} for name, prompt in PROMPTS.items())
  table.write_text('\n'.join(map(json.dumps, rows)))
  return table


def parquet(folder):
  folder.mkdir()
  rows = [{'uid': n, 'prompt': PROMPTS[n], 'image': FILES[n]} for n in PROMPTS]
  pq.write_table(pa.Table.from_pylist(rows), folder / 'x.parquet', row_group_size=2)
  return folder


def add(tar, name, data):
  member = tarfile.TarInfo(name)
  member.size = len(data)
  tar.addfile(member, io.BytesIO(data))


def tars(folder):
  """Two archives, one of them compressed; a pattern names both."""
  folder.mkdir()
  for shard, names in (('1.tar', [*FILES][:2]), ('2.tar.gz', [*FILES][2:])):
    with tarfile.open(folder / shard, 'w:gz' if 'gz' in shard else 'w') as tar:
      for name in names:
        stem, kind = name.split('.')
        add(tar, name, FILES[name])
        add(tar, f'{stem}.json', json.dumps({'prompt': PROMPTS[name]}).encode())
        add(tar, f'{stem}.seg.{kind}', b'ignored')
  return folder / '*.tar*'


def tfrecords(folder):
  directory, _ = prepare(side_texts(folder / 'images'), folder / 'data', name='other')
  return directory


@pytest.mark.parametrize('write', [side_texts, jsonl, parquet, tars, tfrecords])
def test_every_kind_of_input(tmp_path, write):
  directory, report = prepare(write(tmp_path / 'input'), tmp_path / 'out')
  assert directory == tmp_path / 'out/mine/1.0.0'
  key = (lambda name: name.split('.')[0]) if write is tars else str
  expected = [(key(name), FILES[name], PROMPTS[name]) for name in FILES]
  assert triples(directory) == sorted(expected)
  assert report.prepared == report.records == {'train': 3}
  assert not report.lines


def test_by_command(tmp_path, capfd):
  folder = side_texts(tmp_path / 'images')
  table = tmp_path / 'prompts.csv'
  table.write_text('file_name,prompt\na.png,a red cat\nm/b.jpg,two dogs\n')
  out = tmp_path / 'out'
  command = [
    *('prepare', 'images', '--name=mine', f'--input={folder}', f'--out={out}'),
    *(f'--prompts={table}', '--dev=0', '--test=0'),
  ]
  assert main(command) == 0
  printed = capfd.readouterr().out
  counts = {line[:40].strip(): line[40:].split() for line in printed.splitlines()}
  assert counts['rows'] == ['3', '0', '0']
  assert counts['prepared'] == ['2', '0', '0']
  (record, _) = open_split(out / 'mine/1.0.0', 'train')
  assert record.tokens == ('a', 'red', 'cat')
  assert record.keyword_labels == record.keyword_shares == ()
  assert record.implausibility_map == record.misalignment_map == b''
  assert np.isnan(record.scores).all()
  assert main(['verify', str(out)]) == 0
  assert main(['stats', str(out)]) == 0
  assert main(command) == 2
  assert '--overwrite' in capfd.readouterr().err


def test_rows_left_out_are_reported(tmp_path):
  (tmp_path / 'good.png').write_bytes(FILES['a.png'])
  (tmp_path / 'bad.png').write_bytes(FILES['a.png'][:200])
  rows = [
    {'uid': 'good', 'image': 'good.png', 'prompt': 'a red cat'},
    {'uid': 'no text', 'image': 'good.png', 'prompt': ' '},
    {'uid': 'number', 'image': 'good.png', 'prompt': 3},
    {'uid': 'half', 'image': 'good.png', 'prompt': 'half \ud83d'},
    {'uid': 'no image', 'image': None, 'prompt': 'a red cat'},
    {'uid': 'gone', 'image': 'gone.png', 'prompt': 'a red cat'},
    {'uid': 'cut', 'image': 'bad.png', 'prompt': 'a red cat'},
    {'uid': 'web', 'image': 'https://x.org/a.png', 'prompt': 'a red cat'},
    {'uid': 'good', 'image': 'good.png', 'prompt': 'two dogs'},
    {'uid': '\udcff', 'image': '\udcff', 'prompt': 'a red cat'},
  ]
  table = tmp_path / 'table.jsonl'
  table.write_text('\n'.join([*map(json.dumps, rows), '{"image"']))
  directory, report = prepare(table, tmp_path / 'out')
  assert triples(directory) == [('good', FILES['a.png'], 'a red cat')]
  assert report.records == {'train': len(rows) + 1}
  samples = json.loads((directory / 'report.json').read_text())['samples']
  found = {k: [one['uid'] for one in lines] for k, lines in samples.items() if lines}
  assert found == {
    'missing_prompt': ['no text', 'number', 'half'],
    'missing_image': ['no image', 'gone', '?'],
    'unreadable_image': ['cut', 'web'],
    'duplicate_uid': ['good'],
    'unreadable_row': ['10'],
  }
  assert samples['missing_image'][1]['detail'] == f'{tmp_path}/gone.png does not exist'
  assert samples['duplicate_uid'][0]['detail'] == f'again in {table}'
  assert 'line 11: not JSON' in samples['unreadable_row'][0]['detail']


def test_nothing_usable(tmp_path):
  table = tmp_path / 'table.csv'
  table.write_text('image,prompt\na.png,red\nb.png,blue\n')
  with pytest.raises(InputError, match=r'^none of the 2 rows .* a\.png: .* not exist'):
    prepare(table, tmp_path / 'out')
  with pytest.raises(InputError, match=r'--input .*nowhere: no such file or folder'):
    prepare(tmp_path / 'nowhere', tmp_path / 'out')


def test_many_rows_in_several_parts(tmp_path):
  """Every image stays with its uid and prompt; the split depends on the prompt."""
  pixels = [np.full((2, 2, 3), value, np.uint8) for value in range(200)]
  pictures = [codec.encode_png(one) for one in pixels]
  for shard in range(2):
    with tarfile.open(tmp_path / f'{shard}.tar', 'w') as tar:
      for number in range(300 * shard, 300 * shard + 300):
        add(tar, f'{number}.png', pictures[number % 200])
        add(tar, f'{number}.txt', f'number {number % 90}'.encode())
  directory, _ = prepare(tmp_path, tmp_path / 'out', dev=0.2, test=0.2, workers=3)
  found = {split: triples(directory, split) for split in schema.SPLITS}
  assert sorted(itertools.chain(*found.values())) == sorted(
    (str(n), pictures[n % 200], f'number {n % 90}') for n in range(600)
  )
  prompts = [{prompt for *_, prompt in rows} for rows in found.values()]
  assert sum(map(len, prompts)) == len(set.union(*prompts)) == 90
  assert min(map(len, prompts)) > 5


def test_an_input_that_changes_meanwhile(tmp_path, monkeypatch):
  folder, made = side_texts(tmp_path / 'images'), images.decode_image

  def make_and_add(*given):
    (folder / 'new.png').write_bytes(b'')
    return made(*given)

  with monkeypatch.context() as patch:
    patch.setattr(images, 'decode_image', make_and_add)
    with pytest.raises(InputError, match='changed while being read'):
      prepare(folder, tmp_path / 'out')
  assert not (tmp_path / 'out/mine').exists()
  directory, report = prepare(folder, tmp_path / 'out')
  assert len(triples(directory)) == 3
  assert [(line.uid, line.reason) for line in report.lines] == [
    ('new.png', 'missing_prompt')
  ]


def test_batches(tmp_path):
  """The set opens for generators, and as labelled data of which nothing is known."""
  directory, _ = prepare(side_texts(tmp_path / 'images'), tmp_path / 'out')
  split = open_split(directory, 'train')
  tokenizer = Tokenizer(train_model(tmp_path / 'a.model', '_0'))
  plain = PipelineOptions(8, 40, 48, augment=False, labels=False)
  (batch,) = eval_batches(split, tokenizer, plain, batch_size=3)
  assert isinstance(batch, schema.ImageBatch)
  for row, record in enumerate(split):
    pixels = codec.resize(codec.decode_image(record.image), 8)
    np.testing.assert_allclose(batch.image[row], pixels / 127.5 - 1, atol=1e-6)
    ids = tokenizer.encode(record.prompt).ids
    assert batch.text[row, : len(ids) + 1].tolist() == [*ids, 1]
  labelled = PipelineOptions(8, 40, 48)
  (batch,) = eval_batches(split, tokenizer, labelled, batch_size=3)
  trained = train_batches(
    [split], tokenizer, labelled, batch_size=3, seed=0, start_step=0
  )
  for one in (batch, next(trained)):
    assert sorted(one.index) == [0, 1, 2]
    for mask in (one.map_mask, one.score_mask, one.keyword_mask):
      assert not mask.any()
    assert np.isfinite(one.scores).all()


def test_texts_of_thousands_of_words_are_reported_and_kept(tmp_path):
  folder = side_texts(tmp_path / 'in')
  (folder / 'a.txt').write_text('word ' * 4211)
  directory, report = prepare(folder, tmp_path / 'out')
  (line,) = report.lines
  assert (line.uid, line.reason, line.detail) == ('a.png', 'long_text', '4,211 words')
  assert 'text longer than models read' in report.table()
  assert len(triples(directory)) == len(FILES)
