"""Trains, evaluates and exports RAHF models.

  python -m rahf.main --config=configs/quickstart.py [--workdir=DIR] [--mode=train]

Any field of the config can be changed: --config.train.steps=100
--config.model.heatmap_head.convs='(64, 32)'. The fields are in rahf/config.py.
The same command again goes on where a run stopped; so does one on other devices.
"""

import argparse
import difflib
import os
import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from rahf.errors import InputError
from rahf.interruption import Interrupted, Interruption

# What the same command would only meet again.
MISTAKES = (
  *(InputError, FileNotFoundError, FileExistsError, PermissionError),
  *(NotADirectoryError, IsADirectoryError),
)

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A file of configs/; any field can be changed, as in --config.train.steps=100.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Where checkpoints, metrics and reports go; a run that is there already is resumed. '
  'Default: runs/NAME for configs/NAME.py.',
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'eval', 'export', 'precompile'],
  'train: train, or go on; eval: evaluate the newest checkpoint on config.eval.split; '
  'export: make a model directory of it, DIR/export or config.export.dir, for '
  'rahf.load(...).score(images, prompts), which gives plausibility, alignment, '
  'aesthetics and overall in [0, 1], higher is better, maps of implausibility and '
  'misalignment in [0, 1], higher is worse, and for each word the probability in '
  '[0, 1] that the image misses it; '
  'precompile: compile the steps and say what they need, also for a TPU that is not '
  'here (config.precompile.topology).',
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost',
  False,
  'Run together with other processes: on every host of a TPU slice, in every task '
  'under Slurm, Kubernetes or Open MPI, or wherever JAX_COORDINATOR_ADDRESS, '
  'JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.',
)


def main(argv: list[str]) -> int:
  """Runs one mode; a user's mistake ends in one message and status 2.

  Status 1 is what another attempt may get past: a full disk, a network that is away.
  """
  del argv
  # From here on, not only in the loop: imports and data generation take a while.
  with Interruption() as interruption:
    try:
      _run(interruption)
    except Interrupted:
      print('Interrupted; the same command begins again.')
    except ModuleNotFoundError as error:
      if (error.name or '').startswith('rahf'):
        raise
      return _fail(
        f'{error.name} is not installed; training and evaluation need the extra '
        '`train`: pip install "rahf[train]"'
      )
    except (InputError, OSError) as error:
      if os.environ.get('RAHF_TRACEBACK'):
        raise
      status = 2 if isinstance(error, MISTAKES) else 1
      return _fail(f'{error}\n(RAHF_TRACEBACK=1 shows where it was raised)', status)
  return 0


def _run(interruption: Interruption) -> None:
  # Imported late: the flags answer --help at once, and data worker processes, which
  # import this module again, start fast.
  from etils import epath

  from rahf.data import quiet

  # Orbax and JAX note every step of theirs.
  logging.set_verbosity(logging.WARNING)
  workdir = _WORKDIR.value
  if workdir is None:
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem
    workdir = f'runs/{name}'
  if _MODE.value != 'export':  # Which needs no data, mostly.
    quiet.import_tensorflow()
  if _MULTIHOST.value:
    from rahf import distributed

    distributed.join()
  if _MODE.value == 'precompile':
    from rahf.precompile import precompile

    print(precompile(_CONFIG.value))
    return
  if _MODE.value == 'train':
    from rahf.train import train as run
  elif _MODE.value == 'export':
    from rahf.export import export as run
  else:
    from rahf.evaluate import evaluate as run
  run(_CONFIG.value, epath.Path(workdir).absolute(), interruption)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags as absl does, but ends with status 2 and one message of ours."""
  try:
    check_overrides(argv[1:])
    unexpected = flags.FLAGS(argv)[1:]
    if unexpected:
      raise flags.Error(f'unexpected arguments {unexpected}')
    if _CONFIG.value is None:
      raise flags.Error('--config is missing, for example configs/quickstart.py')
  except flags.Error as error:
    sys.exit(_fail(f'{error}; see --help'))
  return argv[:1]


def check_overrides(argv: list[str]) -> None:
  """Checks that the config file is there and has the fields that flags change.

  ml_collections would answer with a traceback.

  Raises:
    flags.Error: the file or a field does not exist.
  """
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument('--config', nargs='?')
  known, others = parser.parse_known_args(argv)
  if not known.config:
    return
  path = known.config.split(':', 1)[0]
  if not pathlib.Path(path).is_file():
    raise flags.Error(f'--config={path}: there is no such file')
  alone = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=alone, sys_argv=[])
  alone(['', f'--config={known.config}'])
  for argument in others:
    if field := re.match(r'--?(?:no)?config\.([^=]+)', argument):
      _check_field(alone.config, field[1])


def _check_field(config: ConfigDict, path: str) -> None:
  section, names = config, path.split('.')
  for depth, name in enumerate(names):
    fields = list(section) if isinstance(section, ConfigDict) else []
    name = name.split('[')[0]
    if name not in fields:
      where = '.'.join(['config', *names[:depth]])
      close = difflib.get_close_matches(name, fields, 3)
      hint = f'did you mean {" or ".join(close)}?' if close else f'it has {fields}'
      raise flags.Error(f'--config.{path}: {where} has no field {name!r}; {hint}')
    section = section[name]


def _fail(message: str, status: int = 2) -> int:
  print(f'error: {message}', file=sys.stderr)
  return status


if __name__ == '__main__':
  app.run(main, flags_parser=parse_flags)
