"""What the commands share that draw prompts and let a scorer judge the images."""

import argparse
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from etils import epath

from rahf.fileio.validators import whole
from rahf.inference import open_scorer
from rahf.inference.image_generator import ImageGenerator
from rahf.inference.output_ranges import ModelOutputs
from rahf.learning.choosing import check_flag, local_path
from rahf.learning.image_requests import ImageRequest, read_requests
from rahf.learning.score_expression import Expression, parse


class DrawingJob(NamedTuple):
  """What to draw, who judges it, and where results go.

  Attributes:
    requests: one for each image.
    out: the folder of the results.
    model: the path of the scorer.
    fingerprint: of the scorer.
    outputs: what the scorer says.
    by: what images are judged by.
  """

  requests: list[ImageRequest]
  out: pathlib.Path
  model: epath.Path
  fingerprint: str
  outputs: ModelOutputs
  by: Expression

  def settings(self, generator: ImageGenerator) -> dict[str, Any]:
    """Returns what the results depend on, as JSON values."""
    return {
      'prompts': hashlib.sha256(json.dumps(self.requests).encode()).hexdigest(),
      'generator': generator.fingerprint,
      'sampling': dict(generator.settings),
      'model': self.fingerprint,
      'by': self.by.text,
    }


def add_arguments(
  parser: argparse.ArgumentParser, *, generator: str, model: str, by: str, by_help: str
) -> None:
  """Adds the arguments that `read_job` reads, and --generator.

  Args:
    generator, model, by_help: the texts of --help.
    by: the default of --by.
  """
  add = parser.add_argument
  add('prompts', metavar='PROMPTS', help='a text file or table, as for --mode=generate')
  add('--generator', required=True, metavar='DIR', help=generator)
  add('--model', required=True, metavar='DIR', help=model)
  add(
    '--by', default=by, metavar='EXPRESSION', help=f'{by_help} (default: %(default)s)'
  )
  add('--out', required=True, metavar='FOLDER', help='a new folder, or one to continue')
  add(
    '--images_per_prompt',
    type=int,
    default=1,
    help='images to draw of each prompt (default: %(default)s)',
  )
  add('--seed', type=int, default=0, help='of the noise (default: %(default)s)')


def read_job(arguments: argparse.Namespace) -> DrawingJob:
  """Reads the prompts, and what the scorer can say.

  Raises:
    InputError: one of them is missing or damaged, or the scorer has no such score.
  """
  for name, rule in (
    ('images_per_prompt', whole(1, 1_000_000)),
    ('seed', whole(0, 2**32 - 1)),
  ):
    check_flag(name, getattr(arguments, name), rule)
  out = local_path(arguments.out, '--out').expanduser()
  model = open_scorer.find(arguments.model)
  description = open_scorer.read_description(model)
  requests = read_requests(
    local_path(arguments.prompts, 'PROMPTS').expanduser(),
    arguments.images_per_prompt,
    arguments.seed,
    name='PROMPTS',
  )
  return DrawingJob(
    requests,
    out,
    model,
    open_scorer.fingerprint(model, description),
    description.outputs,
    parse(arguments.by, description.outputs.scores),
  )
