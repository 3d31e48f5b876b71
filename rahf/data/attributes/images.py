"""The images of a source, by uid."""

import pathlib
from collections.abc import Iterator

from tqdm import tqdm

from rahf.data.schema import DATASET_INFO
from rahf.data.sources.source import Source
from rahf.data.storage import prepared


def prepared_directory(images: str) -> pathlib.Path | None:
  """Returns the prepared data set at or below a path; None if there is none."""
  folder = pathlib.Path(images).expanduser()
  if not folder.is_dir() or not any(folder.rglob(DATASET_INFO)):
    return None
  return prepared.find(folder)[0]


def names(source: Source) -> Iterator[tuple[int, str, bool]]:
  """Yields the position and uid of each image, and whether it has a prompt."""
  texts = source.read_texts()
  for place, item in tqdm(texts, 'Names', source.rows, unit='image', disable=None):
    usable = (
      not item.error and isinstance(item.prompt, str) and bool(item.prompt.strip())
    )
    yield place, item.uid or str(place), usable
