"""Writes a model directory (`inference/model_directory.py`)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from rahf.data.tokenizer import Tokenizer
from rahf.errors import InputError
from rahf.fileio import digests
from rahf.fileio.staged_folder import staged
from rahf.inference import jax_export, model_directory, model_files
from rahf.inference.model_card import model_card
from rahf.inference.model_directory import Description
from rahf.inference.step import from_pixels, make_infer
from rahf.models.rahf import RAHF
from rahf.runtime import distributed
from rahf.runtime.preemption import Interruption


class Content(NamedTuple):
  """The contents of a model directory; `params` are nested NumPy arrays."""

  description: Description
  params: Any
  tokenizer: Tokenizer


def export_content(
  folder: epath.Path,
  read_content: Callable[[], Content],
  interruption: Interruption,
  *,
  program: bool,
) -> None:
  """Writes a model directory and prints how to use it.

  Args:
    read_content: returns the contents; called after the target has been checked.
    program: whether to add `program.jaxexport` (`inference/jax_export.py`).

  Raises:
    InputError: the target exists and is not a model directory, or another process is
      writing it; and whatever `read_content` raises.
    Interrupted: SIGTERM or Ctrl-C came; nothing has changed.
  """
  check_single_process()
  _check_target(folder)
  with distributed.interruptible(interruption):
    content = read_content()
  # Two renames at the end; no signal may come between them.
  with staged(folder) as new, distributed.interruptible(interruption):
    _write_files(new, *content, program)
  use = f"in Python: rahf.load('{folder}').score(images, prompts)"
  if content.description.captions_only:
    use = f'train it further with --config.init.rahf={folder}'
  print(f'Written to {folder}; {use}')


def check_single_process() -> None:
  """Raises InputError if this is one of several processes."""
  if jax.process_count() > 1:
    raise InputError('--mode=export runs in one process; remove --multihost')


def write(
  folder: epath.Path,
  description: Description,
  params: Any,
  tokenizer: Tokenizer,
  *,
  program: bool = False,
) -> None:
  """Writes a model directory, replacing an older one.

  Args:
    params: nested NumPy arrays.
    program: whether to add `program.jaxexport` (`inference/jax_export.py`).
  """
  with staged(folder) as new:
    _write_files(new, description, params, tokenizer, program)


def _write_files(
  folder: epath.Path,
  description: Description,
  params: Any,
  tokenizer: Tokenizer,
  program: bool,
) -> None:
  folder.mkdir(parents=True)
  (folder / model_directory.TOKENIZER).write_bytes(tokenizer.to_bytes())
  model_files.write_params(folder / model_directory.WEIGHTS, params)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder / model_directory.ORBAX, params)
  if program:
    infer = make_infer(
      RAHF(description.model),
      decoder=description.decoder,
      mark_ids=tokenizer.mark_ids,
      length=description.target_length,
    )
    path = folder / model_directory.PROGRAM
    difference = jax_export.write(path, description, params, from_pixels(infer))
    print(
      f'{path.name}: {", ".join(jax_export.PLATFORMS)}; reloaded on '
      f'{jax.default_backend()}, largest difference {difference:.2g}'
    )
  description = dataclasses.replace(description, files=digests.describe(folder))
  card = model_card(description, program=program)
  (folder / model_directory.CARD).write_text(card)
  description_json = model_directory.to_json(description)
  (folder / model_directory.DESCRIPTION).write_text(description_json)


def _check_target(folder: epath.Path) -> None:
  """Raises InputError if `folder` exists and is not a model directory."""
  if not folder.exists() or (folder / model_directory.DESCRIPTION).exists():
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise InputError(
      f'{folder} exists and is not a model directory; choose another with '
      '--config.export.dir'
    )
