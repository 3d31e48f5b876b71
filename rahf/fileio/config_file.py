"""Checks a config file and the flags that change it, before ml_collections reads them.

ml_collections answers a missing file, a mistake in it, or an unknown field with a
traceback; here each is one message.
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
  """Checks that the config file exists and has the fields that flags change.

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
  """Runs a config file, as ml_collections will once more.

  Args:
    given: its path, and after a colon the argument of its get_config.

  Raises:
    flags.Error: there is none, or it does not give a config; says where.
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
      raise InputError('it has no function get_config')
    config = module.get_config(*argument)
    if not isinstance(config, ConfigDict):
      raise InputError(f'get_config() gives {type(config).__name__}, not ConfigDict')
  except Exception as error:
    if os.environ.get('RAHF_TRACEBACK'):
      raise
    raise flags.Error(f'--config={given}: {_explain(error, path)}') from None
  return config


def _explain(error: Exception, path: str) -> str:
  """Says what went wrong in a config file, and where."""
  if isinstance(error, InputError):
    return str(error)
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == path]
  where = f'line {lines[-1]}: ' if lines else ''
  return (
    f'{where}{type(error).__name__}: {error}\n(RAHF_TRACEBACK=1 shows how it came '
    'there)'
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
        f'--config.{path}: a sequence is given as a whole, such as '
        "--config.model.heatmap_head.convs='(64, 32)'"
      )
    section = section[name]
