"""Trains, evaluates, exports and uses RAHF models.

  python -m rahf.main --config=configs/quickstart.py [--workdir=DIR] [--mode=train]
  python -m rahf.main --mode=infer --model=DIR --input=IMAGES --output=RESULTS

Any field of the config can be changed: --config.train.steps=100
--config.model.heatmap_head.convs='(64, 32)'. The fields are in rahf/config/settings.py.
Run the same command to continue a run that was stopped, also on other devices.
"""

import os
import pathlib
import signal
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from rahf.errors import InputError, fail
from rahf.fileio.config_file import check_overrides
from rahf.runtime.preemption import Interrupted, Interruption

_SMALLER = (
  'Lower config.train.batch_size or raise config.train.accumulate; --mode=precompile '
  'says what a config needs'
)
# Errors that the same command would only meet again.
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
  ['train', 'eval', 'infer', 'export', 'precompile'],
  'train: train, or go on; eval: evaluate the newest checkpoint on config.eval.split; '
  'infer: score the images of --input with an exported model, into the folder '
  '--output; run the same command to continue after a stop; '
  'export: make a model directory of it, DIR/export or config.export.dir, or without '
  '--workdir of the weights that config.init.rahf names, as they are, for '
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
_MODEL = flags.DEFINE_string(
  'model',
  None,
  'For infer: a model directory. Default: WORKDIR/export, which --mode=export writes.',
)
_INPUT = flags.DEFINE_string(
  'input',
  None,
  'For infer: a folder of images, with cat.txt beside cat.png or with --prompts; a '
  'table (.csv, .tsv, .jsonl, .parquet) with a column `prompt` or `caption` and one '
  '`image` or `path`, of paths from its own folder, or of bytes in parquet; a '
  "WebDataset .tar; TFRecords; a folder of such files, or a pattern: 'x/*-test*'.",
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'For infer: a folder, new or of the same command.'
)
_PROMPTS = flags.DEFINE_string(
  'prompts',
  '',
  'For infer: the prompts of a folder of images, a table with the columns `prompt` or '
  '`caption`, and `file_name`, `path`, `image` or `uid`. A name without a folder is '
  'that of every such file; one with a folder is a path from --input or the table on.',
)
_MAPS = flags.DEFINE_string(
  'maps',
  'none',
  'For infer: heatmaps beside the results, at the size of each image: png, two grey '
  'files of 8 bits; npz, one file of float16; or none.',
)
_FORMAT = flags.DEFINE_string(
  'format', 'jsonl', 'For infer: of the results, jsonl or parquet.'
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 32, 'For infer: images that one device computes together.'
)
_OF_INFER = (_MODEL, _INPUT, _OUTPUT, _PROMPTS, _MAPS, _FORMAT, _BATCH_SIZE)


def main(argv: list[str]) -> int:
  """Runs one mode; a user's mistake ends in one message and status 2.

  Status 1 is what another attempt may get past, a full disk, a network that is away;
  and results of infer in which images have none, or that are not complete.
  """
  del argv
  # From here on, not only in the loop: imports and data generation take a while.
  with Interruption() as interruption:
    try:
      return _run(interruption)
    except Interrupted:
      if _MODE.value == 'infer':
        print('Interrupted; run the same command to continue.')
        return 1
      print('Interrupted; run the same command to begin again.')
    except ModuleNotFoundError as error:
      if (error.name or '').startswith('rahf'):
        raise
      return fail(
        f'{error.name} is not installed; training and evaluation need the extra '
        '`train`: pip install "rahf[train]"'
      )
    except (InputError, OSError, MemoryError, RuntimeError) as error:
      if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      if os.environ.get('RAHF_TRACEBACK'):
        raise
      status = 2 if isinstance(error, MISTAKES) else 1
      if isinstance(error, MemoryError | RuntimeError):
        error = f'the memory is too small: {error}\n{_SMALLER}'
      return fail(f'{error}\n(RAHF_TRACEBACK=1 shows where it was raised)', status)
  return 0


def _run(interruption: Interruption) -> int:
  """Returns the exit status."""
  # Imported late: the flags answer --help at once, and data worker processes, which
  # import this module again, start fast.
  from rahf.data import quiet_tensorflow
  from rahf.fileio import paths

  # Orbax and JAX note every step of theirs.
  logging.set_verbosity(logging.WARNING)
  workdir = _WORKDIR.value
  if workdir is None and _CONFIG.value is not None:
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS['config'])).stem
    workdir = f'runs/{name}'
  if _MODE.value not in ('infer', 'export'):  # Which need no data set, mostly.
    quiet_tensorflow.import_tensorflow()
  _start_jax()
  if _MODE.value == 'infer':
    return _infer(workdir, interruption)
  if _MODE.value == 'precompile':
    from rahf.precompile import precompile

    print(precompile(_CONFIG.value))
    return 0
  if _MODE.value == 'train':
    from rahf.train import train as run
  elif _MODE.value == 'export' and _WORKDIR.value is None and _CONFIG.value.init.rahf:
    from rahf.export_weights import export_weights as run
  elif _MODE.value == 'export':
    from rahf.export import export as run
  else:
    from rahf.evaluate import evaluate as run
  place = paths.find(workdir, '--workdir').absolute()
  if place.exists() and not place.is_dir():
    raise InputError(f'--workdir={workdir} is a file; name a folder, new or of a run')
  run(_CONFIG.value, place, interruption)
  return 0


def _start_jax() -> None:
  """Starts JAX on what the command is meant for, and says what that is."""
  from rahf import config as config_lib
  from rahf.runtime import accelerator, distributed

  config, platform = _CONFIG.value, ''
  if config is not None:
    config_lib.validate(config)
    platform = config.platform
  computes = _MODE.value in ('train', 'eval', 'infer')
  wanted = accelerator.choose(platform, required=computes)
  if _MULTIHOST.value:
    distributed.join()
  if _MODE.value == 'precompile' and config.precompile.topology:
    return  # It needs no device, and a TPU that is here may be in use.
  devices = accelerator.start(wanted)
  if _MULTIHOST.value:
    distributed.silence_others()
  if computes:
    print(f'Running on {devices}', flush=True)


def _infer(workdir: str | None, interruption: Interruption) -> int:
  from rahf.fileio import paths
  from rahf.infer import Job, infer
  from rahf.inference.model_directory import DESCRIPTION

  model = _MODEL.value
  if model is None:
    model = os.path.join(workdir, 'export')
    if not (paths.find(model, '--workdir') / DESCRIPTION).exists():
      raise InputError(
        f'{workdir} has no exported model; make it with --mode=export, or give --model'
      )
  job = Job(
    model,
    _INPUT.value,
    _OUTPUT.value,
    prompts=_PROMPTS.value,
    maps=_MAPS.value,
    format=_FORMAT.value,
    batch_size=_BATCH_SIZE.value,
  )
  return infer(job, interruption)


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags as absl does, but ends with status 2 and one message of ours."""
  try:
    check_overrides(argv[1:])
    unexpected = flags.FLAGS(argv)[1:]
    if unexpected:
      raise flags.Error(f'unexpected arguments {unexpected}')
    _check_flags()
  except flags.Error as error:
    sys.exit(fail(f'{error}; see --help'))
  return argv[:1]


def _check_flags() -> None:
  """Raises flags.Error where flags are missing, or are for another mode."""
  if _MODE.value == 'infer':
    for flag, example in ((_INPUT, 'images'), (_OUTPUT, 'results')):
      if not flag.value:
        raise flags.Error(f'--{flag.name} is missing, for example {example}')
    if _MODEL.value or _WORKDIR.value or _CONFIG.value:
      return
    raise flags.Error('--model is missing, for example runs/quickstart/export')
  for flag in _OF_INFER:
    if flag.present:
      raise flags.Error(f'--{flag.name} is for --mode=infer')
  if _CONFIG.value is None:
    raise flags.Error('--config is missing, for example configs/quickstart.py')


def _main(argv: list[str]) -> int:
  """`main`; after it SIGTERM has nothing to stop, and must not change the status."""
  status = main(argv)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  return status


if __name__ == '__main__':
  app.run(_main, flags_parser=parse_flags)
