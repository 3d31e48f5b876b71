"""What the readers of this project's own exports share."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from etils import epath

from rahf.errors import InputError
from rahf.pretrained.source import FREE


@contextlib.contextmanager
def reading(description: epath.Path) -> Iterator[None]:
  """Turns errors about the content of a description into one message.

  Raises:
    InputError: the content is missing, is not JSON, or is not as it was written.
  """
  try:
    yield
  except InputError:
    raise
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f'{description} is damaged ({type(error).__name__}: {error!s:.500}); export the '
      'model again'
    ) from None


def require(path: epath.Path) -> None:
  """Raises InputError if a file of the export is missing."""
  if not path.exists():
    raise InputError(f'{path} does not exist; copy or export the model again')


def settings(
  architecture: Mapping[str, Any],
  prefix: str = '',
  without: Collection[str] = FREE,
) -> dict[str, Any]:
  """Returns the settings that the weights require, by dotted field.

  Args:
    architecture: nested settings, as in the description.
    prefix: of the fields' names, such as 'muse.'.
    without: names of settings that the weights do not require.
  """
  found = {}
  for name, value in architecture.items():
    if isinstance(value, dict):
      found |= settings(value, f'{prefix}{name}.', without)
    elif name not in without:
      found[prefix + name] = value
  return found
