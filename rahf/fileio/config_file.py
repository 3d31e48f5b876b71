"""Checks a config file and its override flags before ml_collections reads them.

ml_collections shows a traceback for a missing file, an error in it, or an unknown
field; here, each gives a one-line message.
"""

import argparse
import difflib
import importlib.machinery
import importlib.util
import os
import re
import traceback

from absl import flags
from ml_collections import ConfigDict

from rahf.errors import InputError


def check_overrides(argv: list[str]) -> None:
  """Checks that the config file exists and has the fields that flags override.

  Raises:
    flags.Error: the file or a field does not exist.
  """
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument('--config', nargs='?')
  known, others = parser.parse_known_args(argv)
  if known.config is None:
    return
  config = _load_config(known.config)
  for argument in others:
    if field := re.match(r'--?(?:no)?config\.([^=]*)', argument):
      _check_field(config, field[1])


def _load_config(given: str) -> ConfigDict:
  """Runs a config file; ml_collections will run it again.

  Args:
    given: its path, optionally followed by a colon and the argument of get_config.

  Raises:
    flags.Error: the file does not exist or does not return a config.
  """
  path, *argument = given.split(':', 1)
  if not os.path.isfile(path):
    raise flags.Error(f'--config={path}: there is no such file')
  loader = importlib.machinery.SourceFileLoader('config_file', path)
  spec = importlib.util.spec_from_file_location('config_file', path, loader=loader)
  module = importlib.util.module_from_spec(spec)
  try:
    loader.exec_module(module)
    if not hasattr(module, 'get_config'):
      raise InputError('it has no function get_config()')
    config = module.get_config(*argument)
    if not isinstance(config, ConfigDict):
      raise InputError(f'get_config() returns {type(config).__name__}, not ConfigDict')
  except Exception as error:
    if os.environ.get('RAHF_TRACEBACK'):
      raise
    raise flags.Error(f'--config={given}: {_explain(error, path)}') from None
  return config


def _explain(error: Exception, path: str) -> str:
  """Returns what went wrong in a config file, and in which line."""
  if isinstance(error, InputError):
    return str(error)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  where = f'line {lines[-1]}: ' if lines else ''
  return (
    f'{where}{type(error).__name__}: {error}\n(RAHF_TRACEBACK=1 shows the full '
    'traceback)'
  )


def _check_field(config: ConfigDict, path: str) -> None:
  section, names = config, path.split('.')
  for depth, name in enumerate(names):
    fields = list(section) if isinstance(section, ConfigDict) else []
    name, bracket, _ = name.partition('[')
    if name not in fields:
      where = '.'.join(['config', *names[:depth]])
      close = difflib.get_close_matches(name, fields, 3)
      hint = f'did you mean {" or ".join(close)}?' if close else f'it has {fields}'
      raise flags.Error(f'--config.{path}: {where} has no field {name!r}; {hint}')
    if bracket:
      raise flags.Error(
        f'--config.{path}: give the whole sequence, such as '
        "--config.model.heatmap_head.convs='(64, 32)'"
      )
    section = section[name]
