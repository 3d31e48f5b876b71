"""Trains, evaluates, exports and uses RAHF models.

  python -m rahf.main --config=configs/quickstart.py [--workdir=DIR] [--mode=train]
  python -m rahf.main --mode=infer --model=DIR --input=IMAGES --output=RESULTS

Flags override any config field: --config.train.steps=100
--config.model.heatmap_head.convs='(64, 32)'. rahf/config/settings.py lists them.
If a run stops, run the same command to resume it, on the same devices or others.
"""

import importlib
import os
import pathlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from rahf.errors import InputError, fail
from rahf.fileio.config_file import check_overrides
from rahf.runtime import huge_pages
from rahf.runtime.preemption import Interrupted, Interruption

# The function that runs each mode. Imported only when needed: --help answers at once,
# and data workers, which import this module again, start fast.
MODES = {
  'train': ('rahf.train', 'train'),
  'eval': ('rahf.evaluate', 'evaluate'),
  'infer': ('rahf.infer', 'infer'),
  'generate': ('rahf.generate', 'generate'),
  'export': ('rahf.export', 'export'),
  'precompile': ('rahf.precompile', 'precompile'),
}
EXPORT_WEIGHTS = ('rahf.inference.public_weights', 'export_weights')

# Of the extra `clip`.
CLIP_PACKAGES = ('ftfy', 'tokenizers')
# Errors that a retry cannot fix.
USER_ERRORS = (
  *(InputError, FileNotFoundError, FileExistsError, PermissionError),
  *(NotADirectoryError, IsADirectoryError),
)
_OUT_OF_MEMORY_ADVICE = (
  'Lower config.train.batch_size or raise config.train.accumulate; --mode=precompile '
  'reports how much memory a config needs'
)

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'A file in configs/; override any field with, e.g., --config.train.steps=100.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Directory for checkpoints, metrics and reports; an existing run is resumed. '
  'Default: runs/NAME for configs/NAME.py, runs/NAME_WORD for configs/NAME.py:WORD.',
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  [*MODES],
  'train: train, or resume. '
  'eval: evaluate the newest checkpoint, or weights that need no training, on '
  'config.eval.split. '
  'infer: score the images in --input with an exported model or a CLIP and write the '
  'results to --output; if interrupted, run the same command to continue. '
  'generate: make images of the prompts in --input with a Muse, or a pipeline of '
  'diffusers, and write them to --output; if interrupted, run the same command to '
  'continue. '
  'export: write the newest checkpoint as a model directory, to DIR/export or '
  'config.export.dir; without --workdir, export the weights in config.init.rahf as '
  'they are. rahf.load(DIR).score(images, prompts) then gives plausibility, alignment, '
  'aesthetics and overall scores (0 to 1, higher is better), implausibility and '
  'misalignment maps, and for each word the probability that the image misses it (0 to '
  '1, higher is worse). '
  'precompile: compile the steps and report their memory and time, also for a TPU '
  'that is not attached (config.precompile.topology).',
)
_MULTIHOST = flags.DEFINE_bool(
  'multihost',
  False,
  'Run as one of several processes: on every host of a TPU slice, in every task '
  'under Slurm, Kubernetes or Open MPI, or wherever JAX_COORDINATOR_ADDRESS, '
  'JAX_NUM_PROCESSES and JAX_PROCESS_ID are set.',
)
_MODEL = flags.DEFINE_string(
  'model',
  None,
  'For infer: a model directory, or a CLIP such as PickScore_v1. For generate: the '
  'directory of a Muse, or of a pipeline of diffusers. Default: WORKDIR/export, '
  'written by --mode=export.',
)
_INPUT = flags.DEFINE_string(
  'input',
  None,
  'For generate: prompts, one a line, or a table with a column `prompt` or `caption`. '
  'For infer: a folder of images, with cat.txt next to cat.png, or with --prompts; a '
  'table (.csv, .tsv, .jsonl, .parquet) with a column `prompt` or `caption` and a '
  'column `image` or `path` (paths relative to the table, or bytes in parquet); a '
  "WebDataset .tar; TFRecords; a folder of such files, or a pattern: 'x/*-test*'.",
)
_OUTPUT = flags.DEFINE_string(
  'output',
  None,
  'For infer and generate: a new folder, or one written by the same command.',
)
_PROMPTS = flags.DEFINE_string(
  'prompts',
  '',
  'For infer: the prompts for a folder of images: a table with a column `prompt` or '
  '`caption`, and one of `file_name`, `path`, `image` or `uid`. A bare file name '
  'matches every file of that name; a path is relative to --input or to the table.',
)
_MAPS = flags.DEFINE_string(
  'maps',
  'none',
  "For infer: whether to write heatmaps, at each image's own size: png, two 8-bit "
  'grey files; npz, one float16 file; or none.',
)
_FORMAT = flags.DEFINE_string(
  'format', 'jsonl', 'For infer: format of the results, jsonl or parquet.'
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size',
  None,
  'For infer and generate: images per device in a batch; by default 32, and 8.',
)
_IMAGES_PER_PROMPT = flags.DEFINE_integer(
  'images_per_prompt', 1, 'For generate: images of each prompt.'
)
_SEED = flags.DEFINE_integer(
  'seed', 0, 'For generate: seed of the noise, unless the table has a column `seed`.'
)
_NEGATIVE_PROMPT = flags.DEFINE_string(
  'negative_prompt', '', 'For generate: text that guidance leads away from.'
)
_STEPS = flags.DEFINE_integer(
  'steps', 0, 'For generate: how many sampling steps; 0 for as many as the model has.'
)
_GUIDANCE = flags.DEFINE_float(
  'guidance', 0.0, "For generate: strength of guidance, at least 1; 0 for the model's."
)
# Both modes take a model, an input and an output.
_SHARED_FLAGS = (_MODEL, _INPUT, _OUTPUT, _BATCH_SIZE)
_INFER_FLAGS = (*_SHARED_FLAGS, _PROMPTS, _MAPS, _FORMAT)
_GENERATE_FLAGS = (
  *_SHARED_FLAGS,
  *(_IMAGES_PER_PROMPT, _SEED, _NEGATIVE_PROMPT, _STEPS, _GUIDANCE),
)
# The modes that use a trained model, without a config.
_JOB_FLAGS = {'infer': _INFER_FLAGS, 'generate': _GENERATE_FLAGS}


def main(argv: list[str]) -> int:
  """Runs one mode and returns the exit status.

  Returns:
    0: success, or training or evaluation was interrupted.
    1: a retry may succeed (full disk, network down), or infer is not finished or has
      images without results.
    2: a user's mistake, reported in one message.
  """
  del argv
  # Covers imports and data generation too, which can take minutes.
  with Interruption() as interruption:
    try:
      return _run(interruption)
    except Interrupted:
      if _MODE.value in _JOB_FLAGS:
        print('Interrupted; run the same command to continue.')
        return 1
      print('Interrupted; run the same command again.')
    except ModuleNotFoundError as error:
      if (error.name or '').startswith('rahf'):
        raise
      extra = 'clip' if error.name in CLIP_PACKAGES else 'train'
      return fail(
        f'{error.name} is not installed; this command needs the extra `{extra}`: '
        f'pip install "rahf[{extra}]"'
      )
    except (InputError, OSError, MemoryError, RuntimeError) as error:
      if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' not in str(error):
        raise
      if os.environ.get('RAHF_TRACEBACK'):
        raise
      status = 2 if isinstance(error, USER_ERRORS) else 1
      if isinstance(error, MemoryError | RuntimeError):
        error = f'out of memory: {error}\n{_OUT_OF_MEMORY_ADVICE}'
      return fail(f'{error}\n(set RAHF_TRACEBACK=1 to see the traceback)', status)
  return 0


def _run(interruption: Interruption) -> int:
  """Runs the mode that the flags choose; returns the exit status."""
  from rahf.data import quiet_tensorflow

  mode, config = _MODE.value, _CONFIG.value
  logging.set_verbosity(logging.WARNING)  # Orbax and JAX log every step.
  if mode not in ('infer', 'generate', 'export'):  # They rarely need a data set.
    quiet_tensorflow.import_tensorflow()
  _start_jax()
  module, function = MODES[mode]
  if mode == 'export' and _WORKDIR.value is None and config.init.rahf:
    module, function = EXPORT_WEIGHTS
  run = getattr(importlib.import_module(module), function)
  if mode == 'infer':
    return run(_infer_job(), interruption)
  if mode == 'generate':
    return run(_generate_job(), interruption)
  if mode == 'precompile':
    print(run(config))
  else:
    run(config, _workdir_path(), interruption)
  return 0


def _start_jax() -> None:
  """Starts JAX on the hardware that the command is meant for, and prints it."""
  from rahf import config as config_lib
  from rahf.runtime import accelerator, distributed

  config, platform = _CONFIG.value, ''
  if config is not None:
    config_lib.validate(config)
    platform = config.platform
  if _MODE.value == 'generate':
    # Else JAX takes most of a GPU's memory, which a pipeline of diffusers may need.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  computes = _MODE.value in ('train', 'eval', 'infer', 'generate')
  wanted = accelerator.choose(platform, required=computes)
  if _MULTIHOST.value:
    distributed.join()
  if _MODE.value == 'precompile' and config.precompile.topology:
    return  # It needs no device, and another process may be using a local TPU.
  devices = accelerator.start(wanted)
  if _MULTIHOST.value:
    distributed.silence_others()
  if computes:
    print(f'Running on {devices}', flush=True)


def _workdir() -> str | None:
  """Returns --workdir, or the default of the config."""
  if _WORKDIR.value is not None or _CONFIG.value is None:
    return _WORKDIR.value
  return default_workdir(config_flags.get_config_filename(flags.FLAGS['config']))


def default_workdir(config: str) -> str:
  """Returns the work directory of a config file with or without an argument.

  >>> default_workdir('configs/baselines/shapes.py:clip_words,models/clip-b32')
  'runs/shapes_clip_words_clip-b32'
  """
  file, _, argument = config.partition(':')
  words = [pathlib.Path(word).name for word in argument.split(',') if word]
  return '_'.join([f'runs/{pathlib.Path(file).stem}', *words])


def _workdir_path():
  """Returns the work directory as an `epath.Path`."""
  from rahf.fileio import paths

  path = paths.absolute(paths.find(_workdir(), '--workdir'))
  if path.exists() and not path.is_dir():
    raise InputError(
      f'--workdir={_workdir()} is a file; give a new directory, or that of a run'
    )
  return path


def _infer_job():
  """Returns the flags of --mode=infer as a `rahf.infer.Job`."""
  from rahf.fileio import paths
  from rahf.infer import Job
  from rahf.inference import open_scorer

  model = _MODEL.value
  if model is None:
    workdir = _workdir()
    model = os.path.join(workdir, 'export')
    if not open_scorer.is_model(paths.find(model, '--workdir')):
      raise InputError(
        f'{workdir} has no exported model; run --mode=export first, or give --model'
      )
  return Job(**_values(_INFER_FLAGS, model=model, batch_size=32))


def _generate_job():
  """Returns the flags of --mode=generate as a `rahf.generate.Job`."""
  from rahf.generate import Job

  model = _MODEL.value or os.path.join(_workdir(), 'export')
  return Job(**_values(_GENERATE_FLAGS, model=model, batch_size=8))


def _values(given: Sequence[flags.FlagHolder], **defaults) -> dict[str, Any]:
  """Returns the values of flags by name, with defaults for those that are None."""
  values = {flag.name: flag.value for flag in given}
  return values | {
    name: default for name, default in defaults.items() if values[name] is None
  }


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags like absl, but exits with status 2 and one message on errors."""
  try:
    check_overrides(argv[1:])
    if unexpected := flags.FLAGS(argv)[1:]:
      raise flags.Error(f'unexpected arguments {unexpected}')
    _check_flags()
  except flags.Error as error:
    sys.exit(fail(f'{error}; see --help'))
  return argv[:1]


def _check_flags() -> None:
  """Raises flags.Error if flags are missing or belong to another mode."""
  mode = _MODE.value
  allowed = {flag.name for flag in _JOB_FLAGS.get(mode, ())}
  for other, others in _JOB_FLAGS.items():
    for flag in others:
      if flag.present and flag.name not in allowed:
        raise flags.Error(f'--{flag.name} is for --mode={other}')
  if mode in _JOB_FLAGS:
    examples = {'infer': 'images', 'generate': 'prompts.txt'}
    for flag, example in ((_INPUT, examples[mode]), (_OUTPUT, 'results')):
      if not flag.value:
        raise flags.Error(f'--{flag.name} is missing, for example {example}')
    if _MODEL.value or _WORKDIR.value or _CONFIG.value:
      return
    raise flags.Error('--model is missing, for example runs/quickstart/export')
  if _CONFIG.value is None:
    raise flags.Error('--config is missing, for example configs/quickstart.py')


def _main(argv: list[str]) -> int:
  """Runs `main`; after it, SIGTERM must not change the exit status."""
  status = main(argv)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  return status


if __name__ == '__main__':
  huge_pages.restart_with_them('rahf.main')
  app.run(_main, flags_parser=parse_flags)
