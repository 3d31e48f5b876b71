"""python -m rahf.annotate serve, export, import, predict, draw and invite."""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rahf.annotation.settings import RICH, RULES, TASKS, Settings, changed
from rahf.errors import InputError, printable
from rahf.fileio import paths

if TYPE_CHECKING:
  from rahf.annotation.items import Found
  from rahf.annotation.project import Project

HOST, PORT = '127.0.0.1', 8001
_SERVE = """\
Starts a project, or continues it: people answer in their browsers, and every answer is
stored before the next task appears.

  python -m rahf.annotate serve PROJECT --task=rich --images=images \\
    --prompts=prompts.csv
  python -m rahf.annotate serve PROJECT

rich: points, words and scores, as in figure 1 of the paper. prefer: which of two images
of a prompt, again and again, as for Pick-a-Pic. compare: which of two images, in five
steps, as for table 5; --images is a study of `python -m rahf.improve study make`.
"""
_SETTINGS = {
  'answers': (int, 'people to ask about each image'),
  'repeats': (float, 'share of tasks that show an earlier image again'),
  'gold': (float, 'share of tasks whose answer is known'),
  'limit': (int, 'most repeats, and most gold questions, for one annotator'),
  'passing': (float, 'share of gold questions to answer well to get further tasks'),
  'minutes': (float, 'minutes for which a task is kept for whoever has opened it'),
  'seed': (int, 'of random choices'),
  'assist': (str, "when a model's prediction is shown: start, after, or '' for never"),
  'order': (str, 'of images: table, or disagreement of the model and people'),
}


def add_commands(commands: Any) -> None:
  """Adds the commands to those of a parser."""
  _add_serve(commands)
  path = pathlib.Path
  export = _command(commands, 'export', _export, 'write the answers')
  export.add_argument('--out', type=path, required=True, help='a new file or folder')
  kind = export.add_mutually_exclusive_group()
  kind.add_argument(
    '--label_studio',
    action='store_true',
    help="a folder with Label Studio's tasks and the configuration of their project",
  )
  kind.add_argument(
    '--everything',
    action='store_true',
    help='JSON lines of all that is stored, for `import`; otherwise what the next '
    'command reads: raw annotations, the answers of a study, or a folder of pairs',
  )
  loader = _command(commands, 'import', _import, 'add the answers of an export')
  loader.add_argument('file', type=path, help='that `export --everything` wrote')
  loader.add_argument(
    '--label_studio', action='store_true', help='the file is an export of Label Studio'
  )
  predict = _command(commands, 'predict', _predict, 'let a model say what it sees')
  predict.add_argument('model', help='directory of a RAHF, written by --mode=export')
  predict.add_argument('--batch_size', type=int, default=8)
  draw = _command(commands, 'draw', _draw, 'let a generator draw the images of prompts')
  draw.add_argument('generator', help='directory of a Muse, or a pipeline of diffusers')
  draw.add_argument('--each', type=int, default=8, help='images of each prompt')
  draw.add_argument('--steps', type=int, default=0, help="0 for the model's own")
  draw.add_argument('--guidance', type=float, default=0.0, help="0 for the model's own")
  draw.add_argument('--once', action='store_true', help='end when no prompt waits')
  invite = _command(commands, 'invite', _invite, "print an annotator's link")
  invite.add_argument('name', help='of the annotator; a new link replaces an old one')
  invite.add_argument('--admin', action='store_true', help='for the dashboard')
  invite.add_argument(
    '--public', metavar='URL', help=f'of the server (default: http://{HOST}:{PORT})'
  )


def _add_serve(commands: Any) -> None:
  raw = argparse.RawDescriptionHelpFormatter
  serve = _command(commands, 'serve', _serve, 'annotate in the browser')
  serve.description, serve.formatter_class = _SERVE, raw
  add, path = serve.add_argument, pathlib.Path
  add('--task', choices=TASKS, help='what people do')
  add('--images', type=path, help='folder of <uid>.<extension>, or of a study')
  add(
    '--prompts', type=path, help='table with columns uid and prompt, and perhaps model'
  )
  for name, (kind, text) in _SETTINGS.items():
    default = getattr(Settings, name)
    add(f'--{name}', type=kind, help=f'{text} (a new project: {default})')
  add(
    '--drawn',
    action='store_true',
    help='for prefer: `draw` makes the images, and people may type own prompts',
  )
  add('--gold_file', type=path, help='known answers: raw annotations, one for an image')
  add(
    '--host', default=HOST, help='address to listen on; by default this machine alone'
  )
  add('--port', type=int, default=PORT, help='port to listen on; 0 for any free port')
  add(
    '--public',
    default='',
    metavar='URL',
    help='address that people open, such as https://annotate.example.org; needed with '
    'another --host. They enter with invitations; let a proxy encrypt the connection',
  )


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
  parser = commands.add_parser(name, help=text, description=text)
  parser.set_defaults(run=lambda arguments: _with_extra(run, arguments))
  parser.add_argument('project', type=pathlib.Path, help='folder of the project')
  parser.add_argument(
    '--store', default='', metavar='URL', help='of PostgreSQL, instead of a file'
  )
  return parser


def _with_extra(run: Any, arguments: argparse.Namespace) -> None:
  try:
    run(arguments)
  except ModuleNotFoundError as error:
    raise InputError(
      f"this needs {error.name}, which is not installed: pip install 'rahf[serve]'"
    ) from None


def _serve(arguments: argparse.Namespace) -> None:
  from rahf.annotation import guard
  from rahf.service.listening import is_loopback, listen

  public = guard.check_public(arguments.public) if arguments.public else ''
  # Before the images are read, so that a port in use is reported at once.
  with listen(arguments.host, arguments.port) as listener:
    if not is_loopback(listener) and not public:
      raise InputError(
        f'--host={arguments.host} can be reached by others: give --public, the '
        'address that they open, and invite them with `python -m rahf.annotate invite`'
      )
    _run_server(arguments, listener, public)


def _run_server(arguments: argparse.Namespace, listener: Any, public: str) -> None:
  from rahf.annotation import guard, people, serving

  with _opened(arguments) as found:
    if public and not people.has_invited(found.store):
      print('Nobody is invited yet: python -m rahf.annotate invite PROJECT NAME')
    serving.run(found, listener, guard.Access(public))


@contextlib.contextmanager
def _opened(arguments: argparse.Namespace) -> Iterator['Project']:
  """Yields the project, which is made if there is none and updated otherwise."""
  from rahf.annotation import database, project, serving

  if arguments.gold_file is not None and not arguments.gold_file.is_file():
    raise InputError(f'--gold_file {arguments.gold_file}: no such file')
  given = _given(arguments)
  new = 'task' in given and 'images' in given
  rows = None
  if not arguments.store and not (arguments.project / database.FILE).is_file():
    if not new:
      raise InputError(
        f'{arguments.project} has no project yet; a new one needs --task, --images '
        'and, except for compare, --prompts'
      )
    # Before anything is written.
    rows = _read(Settings(**given), arguments)
  store = project.open_store(arguments.project, arguments.store, new=new)
  try:
    with database.failures(), serving.one_server(store):
      if project.exists(store):
        found = _continue(project.load(store), arguments, given)
      elif new:
        wanted = Settings(**given)
        rows = rows or _read(wanted, arguments)
        print(f'New project {arguments.project}: {len(rows.items):,} to ask about')
        found = project.create(store, wanted, rows.items)
      else:
        raise InputError('the store has no project yet; give --task and --images')
      if arguments.gold_file is not None:
        number = project.set_gold(found, arguments.gold_file)
        print(f'Gold questions: {number}')
      yield found
  finally:
    store.close()


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
  """Returns the settings that the user has given."""
  given = {
    name: getattr(arguments, name)
    for name in ('task', *_SETTINGS)
    if getattr(arguments, name) is not None
  }
  for name, value in given.items():
    if problem := RULES[name](value):
      raise InputError(f'--{name}={value} {problem}')
  if arguments.drawn:
    given['drawn'] = True
  if arguments.images is not None:
    given['images'] = str(arguments.images.absolute())
  return given


def _read(wanted: Settings, arguments: argparse.Namespace) -> 'Found':
  """Reads what people are asked about, and names what is left out."""
  from rahf.annotation import items

  found = items.read(
    wanted.task, pathlib.Path(wanted.images), arguments.prompts, drawn=wanted.drawn
  )
  for uid, reason in [*found.left_out.items()][:10]:
    print(f'Left out: {printable(uid)}: {printable(reason)}')
  if len(found.left_out) > 10:
    print(f'Left out: {len(found.left_out) - 10} more')
  return found


def _continue(
  found: 'Project', arguments: argparse.Namespace, given: dict[str, Any]
) -> 'Project':
  """Updates a project; reads the table again only if it was given."""
  from rahf.annotation import project

  wanted, rows = changed(found.settings, given), None
  if arguments.prompts is not None:
    rows = _read(wanted, arguments)
  found, added = project.update(found, given, rows and rows.items)
  print(f'Continues {arguments.project}; new in the table: {added:,}')
  return found


def _export(arguments: argparse.Namespace) -> None:
  from rahf.annotation import exports, label_studio, project, transfer

  out = paths.new(arguments.out, '--out')
  with project.opened(arguments.project, arguments.store) as found:
    if arguments.everything:
      count = transfer.export(found, out)
    elif arguments.label_studio:
      count = label_studio.export(found, out)
    else:
      count = exports.WRITERS[found.settings.task](found, out)
  print(f'Written to {out}: {count:,} answers')


def _import(arguments: argparse.Namespace) -> None:
  from rahf.annotation import label_studio, project, transfer

  load = label_studio.load if arguments.label_studio else transfer.load
  with project.opened(arguments.project, arguments.store) as found:
    count = load(found, arguments.file)
  print(f'Added: {count:,} answers')


def _predict(arguments: argparse.Namespace) -> None:
  import rahf
  from rahf.annotation import predictions, project

  with project.opened(arguments.project, arguments.store) as found:
    if found.settings.task != RICH:
      raise InputError(f'predictions are for --task={RICH}')
    model = rahf.load(arguments.model, batch_size=arguments.batch_size)
    count = predictions.predict(found, model, arguments.batch_size)
  print(f'Predicted: {count:,} images; `serve` shows them with --assist')


def _draw(arguments: argparse.Namespace) -> None:
  from rahf.annotation import drawing, project
  from rahf.learning.open_generator import open_generator

  if not 2 <= arguments.each <= 1000:
    raise InputError(f'--each={arguments.each} must be from 2 to 1000')
  with project.opened(arguments.project, arguments.store) as found:
    generator = open_generator(
      arguments.generator,
      rows=arguments.each,
      steps=arguments.steps,
      guidance=arguments.guidance,
    )
    name = pathlib.Path(arguments.generator).name
    print(f'Draws with {name}: {generator.summary}', flush=True)
    count = drawing.draw(
      found, generator, name=name, each=arguments.each, once=arguments.once
    )
  print(f'Drawn: {count:,} images')


def _invite(arguments: argparse.Namespace) -> None:
  from rahf.annotation import guard, people, project

  public = guard.check_public(arguments.public or f'http://{HOST}:{PORT}')
  role = people.ADMIN if arguments.admin else people.ANNOTATOR
  with project.opened(arguments.project, arguments.store) as found:
    token = people.invite(found.store, arguments.name, role)
  print(f'{public}/join#{token}')
  if not arguments.public:
    print(
      f'The link is for port {PORT} of this machine; with another address, give '
      '--public.',
      file=sys.stderr,
    )
