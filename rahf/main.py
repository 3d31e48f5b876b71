"""python -m rahf.main --config=configs/quickstart.py [--workdir=DIR] [--mode=train]"""

import os
import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

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
  ['train', 'eval'],
  'train: train, or go on; eval: evaluate the newest checkpoint on config.eval.split.',
)


def main(argv: list[str]) -> int:
  """Runs one mode; a user's mistake ends in one line and status 2."""
  if argv[1:]:
    print(f'error: unexpected arguments {argv[1:]}; see --help', file=sys.stderr)
    return 2
  if _CONFIG.value is None:
    print('error: --config is missing, for example configs/quickstart.py; see --help')
    return 2
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
  try:
    quiet.import_tensorflow()
    if _MODE.value == 'train':
      from rahf.train import train as run
    else:
      from rahf.evaluate import evaluate as run
    run(_CONFIG.value, epath.Path(workdir).absolute())
  except (ValueError, OSError) as error:
    if os.environ.get('RAHF_TRACEBACK'):
      raise
    print(
      f'error: {error}\n(RAHF_TRACEBACK=1 shows where it was raised)', file=sys.stderr
    )
    return 2
  return 0


if __name__ == '__main__':
  app.run(main)
