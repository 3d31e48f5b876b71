"""Draws images with given shares of answers: python -m rahf.data sample."""

import argparse
import csv
import hashlib
import os
import pathlib
import re
import shlex

from PIL import Image
from tqdm import tqdm

from rahf.data.attributes import images as images_lib
from rahf.data.attributes import report, sampling, table
from rahf.data.images import codec, files, inputs
from rahf.data.images.codec import ImageError
from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.fileio.paths import new
from rahf.fileio.staged_folder import staged

# What the name of a file cannot have, or only for hidden files.
_NOT_IN_NAMES = re.compile(r'[/%\x00-\x1f\x7f]|^\.')
_LONGEST_NAME = 200  # bytes


def sample(arguments: argparse.Namespace) -> int:
  """Draws the images, and writes them to --out; returns the exit status."""
  out = new(arguments.out, '--out')
  prepared = images_lib.prepared_directory(arguments.images)
  path = arguments.attributes or (prepared and prepared / table.FILE)
  if not path or not path.exists():
    raise InputError(
      f'{path or "--attributes"} is missing; `python -m rahf.data attributes` writes '
      'the attributes of images'
    )
  images = str(prepared or arguments.images)
  source = open_source(images, arguments.prompts or '', flag='IMAGES')
  rows, known = [*images_lib.names(source)], table.read(path)
  # An image of Pick-a-Pic occurs once for each of its comparisons.
  positions = {uid: place for place, uid, usable in reversed(rows) if usable}
  have = known.rows_of([*positions])
  unknown = [uid for uid in positions if uid not in have]
  others = len(known.uids) - len(have)
  # An image that could not be read has none; if all have none, it is an error.
  known = known.of([*have] or unknown, str(path))
  left_out = len({uid for _, uid, _ in rows} - {*positions})
  quotas = sampling.parse_quotas(arguments.quota, known)
  rows = sampling.sample(
    known,
    quotas,
    arguments.count,
    seed=arguments.seed,
    confidence=arguments.confidence,
  )
  drawn = known.take(rows)
  usable = len(sampling.candidates(known, quotas, arguments.confidence))
  facts = [
    f'{len(drawn.uids):,} of {len(known.uids):,} images, drawn with seed '
    f'{arguments.seed}.',
    f'{usable:,} could be drawn: their answers have a quota, and a confidence of '
    f'{arguments.confidence:g} or more.',
    f'Quotas: `{shlex.join(arguments.quota)}`.',
  ]
  if unknown:
    facts.append(f'{len(unknown):,} others have no attributes.')
  if others:
    facts.append(f'{others:,} rows of {path.name} are of other images.')
  if left_out:
    facts.append(f'{left_out:,} others have no prompt, or no image.')
  text = report.sample_report(known, drawn, quotas, facts)
  with staged(out) as folder:
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    names = _copy(folder, source, {positions[uid]: uid for uid in drawn.uids})
    named = drawn._replace(uids=tuple(names[uid] for uid in drawn.uids))
    table.write(folder / table.FILE, named)
    picture = report.draw({'before': known, 'drawn': drawn})
    Image.fromarray(picture).save(folder / 'shares.png')
    (folder / 'report.md').write_text(text)
  print(f'\n{text}\nWritten to {out}')
  return 0


def _copy(folder: pathlib.Path, source: Source, uids: dict[int, str]) -> dict[str, str]:
  """Copies images, and writes their prompts; returns their file names by uid."""
  names, prompts = {}, []
  (folder / 'images').mkdir()
  rows = source.read_rows(uids)
  for position, load in tqdm(rows, 'Copying', len(uids), unit='image', disable=None):
    item, uid = load(), uids[position]
    try:
      is_file = isinstance(item.image, bytes)
      data = item.image if is_file else inputs.read_file(str(item.image))
      names[uid] = file_name(uid, codec.ENDINGS[codec.open_image(data).format])
    except ImageError as error:
      raise InputError(f'{uid} cannot be copied: {error}') from None
    (folder / 'images' / names[uid]).write_bytes(data)
    prompts.append((names[uid], item.prompt))
  with (folder / 'prompts.csv').open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(('file_name', 'prompt'))
    writer.writerows(prompts)
  return names


def file_name(uid: str, ending: str) -> str:
  """Returns the name of an image's file: its uid, as far as names of files can be so.

  Args:
    ending: for a uid that does not end like an image.
  """
  name = _NOT_IN_NAMES.sub(lambda found: f'%{ord(found[0]):02X}', uid)
  if not files.is_image(pathlib.PurePath(name)):
    name += ending
  if len(os.fsencode(name)) <= _LONGEST_NAME:
    return name
  digest = hashlib.sha256(os.fsencode(uid)).hexdigest()[:16]
  return f'{digest}{pathlib.PurePath(name).suffix}'
