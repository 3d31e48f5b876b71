"""Has people annotate images through Rapidata: python -m rahf.annotate --help."""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rahf.annotation.rapidata import Desk, collect, start
from rahf.errors import InputError, fail


def open_client() -> Any:
  """Returns Rapidata's client, which asks to log in where it has to.

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


def main(
  argv: Sequence[str] | None = None, connect: Callable[[], Any] = open_client
) -> int:
  """Runs the command; returns the exit status: 0, or 2 for a mistake."""
  arguments = _parser().parse_args(argv)
  try:
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
        f'no file in {arguments.images} is named by a uid of {arguments.prompts}'
      )
    desk = Desk(connect(), arguments.out, images, prompts)
    if not arguments.collect:
      jobs = start(desk, responses=arguments.responses, audience=arguments.audience)
      print(f'Asked for scores and words of {len(images)} images: {", ".join(jobs)}')
      print('Once they are answered: the same command with --collect')
    elif path := collect(desk, low=arguments.low):
      print(f'Written: {path}')
    else:
      print('Asked for points; once they are answered: the same command again')
  except (InputError, OSError) as error:
    return fail(error)
  return 0


def _note_left_out(source: Any, uids: Sequence[str]) -> None:
  """Prints what of the table and the images is not used."""
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
    print(f'Left out, since they are links: {", ".join(map(str, source.linked))}')


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(prog='python -m rahf.annotate', description=__doc__)
  services = parser.add_subparsers(required=True, metavar='SERVICE')
  rapidata = services.add_parser(
    'rapidata',
    help='crowd annotation; costs money',
    description='Starts jobs for scores and words; with --collect waits for them, '
    'starts jobs for points on images that scored low, and the next time writes '
    'annotations.jsonl for `python -m rahf.data prepare annotated`.',
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add, path = rapidata.add_argument, pathlib.Path
  add('--images', type=path, required=True, help='folder of <uid>.<extension>')
  add('--prompts', type=path, required=True, help='table of uid and prompt')
  add('--out', type=path, required=True, help='where jobs and answers are kept')
  add('--collect', action='store_true', help='wait for the answers and write them')
  add('--responses', type=int, default=20, help='answers for each image and question')
  add('--audience', default='global', help='id of who is asked')
  add('--low', type=float, default=0.6, help='highest score, 0 to 1, to ask for points')
  return parser


if __name__ == '__main__':
  sys.exit(main())
