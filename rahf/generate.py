"""Generates images with a Muse, or with a pipeline of diffusers: `--mode=generate`.

  python -m rahf.main --mode=generate --model=DIR --input=prompts.txt --output=RESULTS

Each image is a function of model, prompt, seed and number alone. The images that exist
already are kept, so that the same command continues after a stop; those that are cut
off are drawn again.
"""

import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence

import jax
from PIL import Image
from tqdm import tqdm

from rahf.data.images import codec
from rahf.drawing import contact_sheet
from rahf.errors import InputError
from rahf.fileio import atomic_write
from rahf.fileio.claimed_folder import claimed
from rahf.fileio.validators import real, whole
from rahf.inference.image_generator import MAX_SEED, ImageGenerator
from rahf.learning.choosing import check_flag
from rahf.learning.image_requests import (
  ImageRequest,
  read_requests,
  warn_of_long_prompts,
)
from rahf.learning.open_generator import open_generator
from rahf.runtime import distributed
from rahf.runtime.preemption import Interruption

TABLE, SETTINGS, SHEET = 'images.csv', 'generate.json', 'contact_sheet.png'
COLUMNS = ('file_name', 'prompt', 'original', 'seed', 'number')
PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
# Prompts on the contact sheet.
SHOWN = 100


@dataclasses.dataclass(frozen=True)
class Job:
  """The flags of --mode=generate.

  Attributes:
    model: directory of a Muse, or of another pipeline of diffusers.
    input: prompts, see `image_requests.read_requests`.
    output: folder of the results.
    images_per_prompt: number of images of each prompt.
    seed: of the noise, where the table has none.
    negative_prompt: text that guidance leads away from.
    batch_size: images that a device computes at once.
    steps, guidance: of the sampling; 0 for those of the model.
    input_name: of the argument that gave `input`, for errors.
  """

  model: str
  input: str
  output: str
  images_per_prompt: int
  seed: int
  negative_prompt: str
  batch_size: int
  steps: int
  guidance: float
  input_name: str = '--input'


def generate(job: Job, interruption: Interruption) -> int:
  """Generates all images and prints where they are; returns the exit status.

  Raises:
    InputError: model, prompts or output cannot be used.
    Interrupted: SIGTERM or Ctrl-C came; finished images are kept.
  """
  distributed.check_joined()
  for name, rule in (
    ('images_per_prompt', whole(1, 1_000_000)),
    ('batch_size', whole(1, 1_000_000)),
    ('seed', whole(0, MAX_SEED)),
    ('steps', whole(0, 1000)),
  ):
    check_flag(name, getattr(job, name), rule)
  if job.guidance:
    check_flag('guidance', job.guidance, real(1, 1000))
  folder = pathlib.Path(job.output).expanduser()
  with interruption.raising(), contextlib.ExitStack() as stack:
    requests = read_requests(
      pathlib.Path(job.input).expanduser(),
      job.images_per_prompt,
      job.seed,
      job.negative_prompt,
      name=job.input_name,
    )
    generator = open_generator(
      job.model,
      rows=job.batch_size,
      steps=job.steps,
      guidance=job.guidance,
      devices=jax.local_devices(),
    )
    if distributed.is_first():
      settings = _settings(generator, requests, job)
      stack.enter_context(claimed(folder, SETTINGS, settings, '--output'))
    distributed.wait_for_all()
    print(f'Model: {job.model}, {generator.summary}; {len(requests):,} images')
    warn_of_long_prompts(generator, requests)
    _draw_missing(generator, folder, requests)
    distributed.wait_for_all()
    if distributed.is_first():
      _write_results(folder, requests)
      print(f'Written to {folder}/{TABLE}: {len(requests):,} images')
  return 0


def _settings(
  generator: ImageGenerator, requests: Sequence[ImageRequest], job: Job
) -> dict[str, object]:
  """Returns everything that the images depend on."""
  digest = hashlib.sha256()
  for one in requests:
    digest.update(json.dumps(one).encode())
  return {
    'model': generator.fingerprint,
    'requests': digest.hexdigest(),
    'images': len(requests),
    'sampling': dict(generator.settings),
    'batch_size': job.batch_size,
  }


def _draw_missing(
  generator: ImageGenerator, folder: pathlib.Path, requests: Sequence[ImageRequest]
) -> None:
  """Draws this process's share of the images that do not exist yet."""
  own = requests[jax.process_index() :: jax.process_count()]
  missing = [one for one in own if not _is_whole(folder / one.file_name)]
  bar = tqdm(
    total=len(own),
    initial=len(own) - len(missing),
    desc='Generating',
    unit='image',
    mininterval=1,
    file=sys.stderr,
    disable=not distributed.is_first(),
  )
  with bar:
    pixels = generator.draw([one.request for one in missing])
    for one, image in zip(missing, pixels, strict=True):
      path = folder / one.file_name
      path.parent.mkdir(parents=True, exist_ok=True)
      atomic_write.write(path, codec.encode_png(image))
      bar.update()


def _is_whole(path: pathlib.Path) -> bool:
  """Returns whether a file is there, and ends as a PNG does."""
  try:
    with path.open('rb') as file:
      file.seek(-len(PNG_END), io.SEEK_END)
      return file.read() == PNG_END
  except OSError:  # Also of a shorter file.
    return False


def _write_results(folder: pathlib.Path, requests: Sequence[ImageRequest]) -> None:
  """Writes the table and the contact sheets."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(COLUMNS)
  for one in requests:
    request = one.request
    writer.writerow(
      (one.file_name, request.prompt, one.original, request.seed, request.number)
    )
  for number, sheet in enumerate(contact_sheet.sheets(_rows(folder, requests)), 1):
    name = SHEET if number == 1 else SHEET.replace('.png', f'-{number}.png')
    atomic_write.write(folder / name, _png(sheet))
  # Last: a folder with a table is complete.
  atomic_write.write(folder / TABLE, file.getvalue())


def _rows(
  folder: pathlib.Path, requests: Iterable[ImageRequest]
) -> Iterator[contact_sheet.Row]:
  groups = itertools.groupby(requests, lambda one: one.original)
  for prompt, group in itertools.islice(groups, SHOWN):
    yield contact_sheet.Row(
      prompt,
      [
        contact_sheet.Tile(
          _thumbnail(folder / one.file_name),
          f'seed {one.request.seed}, number {one.request.number}',
          one.file_name,
        )
        for one in group
      ],
    )


def _thumbnail(path: pathlib.Path) -> bytes:
  try:
    image = Image.open(path)
    image.thumbnail((contact_sheet.SIDE, contact_sheet.SIDE))
  except OSError as error:
    raise InputError(
      f'{path} is damaged ({error}); delete it, and run the same command again to draw '
      'it'
    ) from None
  return _png(image)


def _png(image: Image.Image) -> bytes:
  file = io.BytesIO()
  image.save(file, 'PNG')
  return file.getvalue()
