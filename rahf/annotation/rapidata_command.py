"""python -m rahf.annotate rapidata: its arguments, and what it does."""

import argparse
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from rahf.annotation.rapidata import RapidataSession, collect, start
from rahf.errors import InputError


def open_client() -> Any:
  """Returns Rapidata's client, which asks the user to log in if necessary.

  Raises:
    InputError: the client is not installed.
  """
  try:
    from rapidata import RapidataClient
  except ImportError:
    raise InputError(
      "the client of Rapidata is not installed: pip install 'rahf[annotate]'"
    ) from None
  return RapidataClient()


def add_command(commands: Any, connect: Callable[[], Any]) -> None:
  """Adds the command to those of a parser.

  Args:
    connect: returns Rapidata's client.
  """
  rapidata = commands.add_parser(
    'rapidata',
    help='crowd annotation; costs money',
    description='Starts jobs for scores and words. With --collect, waits for them and '
    'starts jobs for points on images that scored low; with --collect again, writes '
    'annotations.jsonl for `python -m rahf.data prepare annotated`.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  rapidata.set_defaults(run=lambda arguments: _run(arguments, connect))
  add, path = rapidata.add_argument, pathlib.Path
  add('--images', type=path, required=True, help='folder of <uid>.<extension>')
  add('--prompts', type=path, required=True, help='table with columns uid and prompt')
  add('--out', type=path, required=True, help='folder for jobs and answers')
  add('--collect', action='store_true', help='wait for the answers and write them')
  add('--responses', type=int, default=20, help='answers per image and question')
  add('--audience', default='global', help='id of the audience to ask')
  add(
    '--low',
    type=float,
    default=0.6,
    help='highest score to ask for points, 0 to 1',
  )


def _run(arguments: argparse.Namespace, connect: Callable[[], Any]) -> None:
  """Starts jobs, or collects them."""
  from rahf.data.datasets.joining.image_folder import ImageFolder, read_prompts
  from rahf.data.images.files import SUFFIXES

  if not arguments.images.is_dir():
    raise InputError(f'--images {arguments.images}: no such folder')
  uids = dict.fromkeys(uid for uid, _ in read_prompts(arguments.prompts))
  source = ImageFolder(arguments.images, arguments.prompts, uids)
  prompts = source.prompts
  # In the table's order.
  images = {
    uid: source.locations[uid][0]
    for uid in uids
    if uid in prompts
    and uid in source.locations
    and source.locations[uid][0].suffix.lower() in SUFFIXES
  }
  _note_left_out(source, [uid for uid in uids if uid not in images])
  if not images:
    raise InputError(
      f'no file in {arguments.images} is named after a uid in {arguments.prompts}'
    )
  session = RapidataSession(connect(), arguments.out, images, prompts)
  if not arguments.collect:
    jobs = start(session, responses=arguments.responses, audience=arguments.audience)
    print(f'Asked for scores and words of {len(images)} images: {", ".join(jobs)}')
    print('Once people have answered, run the same command with --collect')
  elif path := collect(session, low=arguments.low):
    print(f'Written: {path}')
  else:
    print('Asked for points; once people have answered, run the same command again')


def _note_left_out(source: Any, uids: Sequence[str]) -> None:
  """Prints which rows of the table and which images are not used."""
  if uids:
    reason = source.unprompted.get(uids[0], 'it has no PNG, JPEG or WebP file')
    print(f'Left out: {len(uids)} uids; the first, {uids[0]}: {reason}')
  for title, found in (
    ('Several files', source.repeated),
    ('Several prompts', source.conflicts),
  ):
    for uid, detail in itertools.islice(found.items(), 1):
      print(f'{title}: {len(found)} uids; the first, {uid}: {detail}')
  if source.linked:
    print(f'Skipped links: {", ".join(map(str, source.linked))}')
