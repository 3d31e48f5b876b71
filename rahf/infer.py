"""Scores a folder or table of any size with an exported model or a CLIP.

  python -m rahf.main --mode=infer --model=DIR --input=images --output=results

Threads read and prepare images while the devices work on earlier ones; only a few
batches are in memory at any time. Rows are written in parts: after a kill, the same
command continues after the last complete part (`inference/results_folder.py`). Several
processes share the parts.

Data format of each row:
  uid           text            from the input, or the file's name or row number
  prompt        text            as read
  height, width int             image size in pixels
  plausibility, alignment, aesthetics, overall
                float           in [0, 1], higher is better
  similarity    float           instead of these four, of a CLIP: the cosine times the
                                model's scale, higher is better
  keywords      list            {"word", "p_misaligned"}: the words of the prompt, which
                                end at white space and , . ? ! " : ; each with its
                                probability in [0, 1], higher is worse, or null if the
                                prompt was truncated before it
  misaligned    list of text    words whose probability is above the threshold
  truncated     bool            whether the prompt was too long and lost its end
  implausibility_map, misalignment_map
                text            file, relative to the output; in [0, 1], higher is worse
  error         text            why there is no result; all but uid and prompt are null
Missing values are null. There are no columns for what the model does not say: a CLIP
gives neither words nor maps. The manifest has range and direction of each output.
"""

import contextlib
import dataclasses
import pathlib
import sys

import jax
from etils import epath

from rahf.data.sources.source import Source, open_source
from rahf.errors import InputError
from rahf.fileio import locks
from rahf.fileio.table_files import check_pyarrow
from rahf.inference import open_scorer
from rahf.inference.open_scorer import load
from rahf.inference.part_scorer import PartScorer
from rahf.inference.results_folder import (
  FORMATS,
  PART_ROWS,
  Output,
  Settings,
  check_apart,
  check_place,
  wait_until,
)
from rahf.inference.scorer import ScorerDescription
from rahf.runtime import distributed
from rahf.runtime.preemption import Interruption

MAPS = ('none', 'png', 'npz')


@dataclasses.dataclass(frozen=True)
class Job:
  """What to score, with which model, and where to write results.

  Attributes:
    model: a model directory, or a CLIP; see `open_scorer.load`.
    input: images and prompts, see `source.KINDS`.
    output: a folder, new or with results of the same job, which is then continued.
    prompts: a table, for a folder of images without text files; '' for none.
    maps: 'png', two 8-bit grey files per image, where 255 means 1; 'npz', one float16
      file; both at the image's own size; or 'none'.
    format: of the results, 'jsonl' or 'parquet'.
    batch_size: images per device in a batch.
  """

  model: str
  input: str
  output: str
  prompts: str = ''
  maps: str = 'none'
  format: str = 'jsonl'
  batch_size: int = 32


def infer(job: Job, interruption: Interruption) -> int:
  """Scores all images and prints where the results are.

  Returns:
    0, or 1 if an image has no result (its row says why) or if linked folders were
    skipped.

  Raises:
    InputError: model, input or output cannot be used, or the input changed.
    Interrupted: SIGTERM or Ctrl-C came; complete parts are kept.
  """
  _check(job)
  # Safe to interrupt anywhere: files get their final names only once complete.
  with interruption.raising(), contextlib.ExitStack() as stack:
    output_path = pathlib.Path(job.output).expanduser()
    check_apart(job.input, output_path)
    source = open_source(job.input, job.prompts)
    folder = open_scorer.find(job.model)
    description = open_scorer.read_description(folder)
    _check_maps(job, description)
    devices = jax.local_devices()
    batch = job.batch_size * len(devices)
    check_place(output_path)
    if distributed.is_first():
      stack.enter_context(locks.locked(output_path))
    output = Output(
      output_path,
      _settings(job, folder, description, source),
      about={
        'job': dataclasses.asdict(job),
        'model': description.summary,
        'outputs': description.outputs.to_dict(),
      },
      # A whole number of batches, so that only the last batch is not full.
      part_rows=batch * -(-PART_ROWS // batch),
      first=distributed.is_first(),
    )
    if not output.summary:
      print(
        f'Model: {folder}, {description.summary}; {source.rows:,} images', flush=True
      )
      model = load(folder, batch_size=batch, devices=devices)
      PartScorer(model, source, output, job.maps).run()
      _complete(source, output)
    if distributed.is_first():
      output.remove_parts()
  return _report(source, output, description)


def _report(source: Source, output: Output, description: ScorerDescription) -> int:
  """Prints where the results are; returns the exit status."""
  summary = output.summary
  print(
    f'Written to {output.results}: {summary["rows"]:,} images. '
    f'{description.outputs.ranges}'
  )
  if summary['errors']:
    print(
      f'{summary["errors"]:,} of them have no result; see the column `error` of their '
      'rows'
    )
  if source.linked:
    print(
      f'Warning: skipped {len(source.linked):,} linked folders, the first '
      f'{source.linked[0]}; to score their images, give the target as --input',
      file=sys.stderr,
    )
  return 1 if summary['errors'] or source.linked else 0


def _check(job: Job) -> None:
  for name in ('input', 'prompts', 'output'):
    if '://' in (value := getattr(job, name)):
      advice = (
        'write to a local folder and copy that' if name == 'output' else 'copy it'
      )
      raise InputError(
        f'--{name}={value} is not a local path; {advice}, or mount the bucket '
        '(gcsfuse, s3fs) and give the path in it'
      )
  for name, value, known in (
    ('maps', job.maps, MAPS),
    ('format', job.format, FORMATS),
  ):
    if value not in known:
      raise InputError(f'--{name}={value} is not one of {", ".join(known)}')
  if job.batch_size < 1:
    raise InputError(f'--batch_size={job.batch_size} must be at least 1')
  if job.format == 'parquet':
    check_pyarrow()
  distributed.check_joined()


def _check_maps(job: Job, description: ScorerDescription) -> None:
  if job.maps != 'none' and not description.outputs.maps:
    raise InputError(
      f'--maps={job.maps}, but {job.model} makes no heatmaps ({description.summary}); '
      'leave out --maps'
    )


def _settings(
  job: Job, folder: epath.Path, description: ScorerDescription, source: Source
) -> Settings:
  model = open_scorer.fingerprint(folder, description)
  return Settings(model, source.digest, source.rows, job.maps, job.format)


def _complete(source: Source, output: Output) -> None:
  """Waits for the parts of all processes; the first process joins them."""
  wait_until(lambda: output.summary or len(output.done()) == output.parts)
  if distributed.is_first():
    source.check_unchanged()
    output.finish()
  wait_until(lambda: output.summary)
