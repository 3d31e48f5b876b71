"""Builds a data set from your own images with raw annotations.

As with RichHF-18K, nothing is dropped silently: the report lists every image that was
left out.
"""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rahf.data import label_words, schema
from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.image_folder import ImageFolder
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.images.codec import ImageError, decode_image, encode_map
from rahf.data.labels import raw
from rahf.data.labels.consolidate import DRAW_FUNCTIONS, Annotation, Draw, consolidate
from rahf.errors import InputError

VERSION = '1.0.0'


def prepare_annotated(
  data_dir: os.PathLike | str,
  *,
  name: str,
  annotations: os.PathLike | str,
  images: os.PathLike | str,
  prompts: os.PathLike | str,
  dev: float = 0.05,
  test: float = 0.05,
  drawn: str = 'discs',
  workers: int | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, Report]:
  """Consolidates raw annotations and writes them with their images as a data set.

  The split of an image depends on its prompt alone: images of one prompt stay together,
  and adding images moves none of the others.

  Args:
    data_dir: where to write; the result is `<data_dir>/<name>/<version>/`.
    name: of the data set, for config.data.name.
    annotations: JSON lines in the format of `rahf.data.labels.raw`.
    images: folder or tar archive of image files named <uid>.<extension>.
    prompts: CSV, TSV, JSONL or parquet table of uid and prompt.
    dev, test: shares of the prompts; the rest is for training.
    drawn: how points become maps, a key of `consolidate.DRAW_FUNCTIONS`.
    workers: number of threads; None for one per core.
    overwrite: replace an existing data set.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: a path is missing, a file is damaged, no image can be used, or the
      directory exists.
  """
  if not pathlib.Path(annotations).is_file():
    raise InputError(f'--annotations {annotations}: no such file')
  target = writing.target_directory(data_dir, name, VERSION, overwrite)
  report = Report()
  by_uid = raw.read(pathlib.Path(annotations))
  if not by_uid:
    raise InputError(f'--annotations {annotations}: the file is empty')
  source = ImageFolder(images, prompts, by_uid)
  splits = _split_uids(by_uid, source, dev, test, report)
  if not any(splits.values()):
    first = report.lines[0]
    raise InputError(
      f'none of the {len(by_uid)} annotated images has both a file in {images} and a '
      f'prompt in {prompts}; first, {first.uid}: {first.detail}'
    )
  report.note_linked(source.linked)
  report.note_empty(splits)

  def finish(folder: pathlib.Path, uids: Mapping[str, Sequence[str]]) -> None:
    for split, written in uids.items():
      raw.write(raw.path(folder, split), ((uid, by_uid[uid]) for uid in written))

  writing.write(
    target,
    [
      AnnotatedImage(split, uid, source.prompts[uid], location)
      for uid, location in source.locations.items()
      for split, found in splits.items()
      if uid in found
    ],
    functools.partial(_records, by_uid, source, DRAW_FUNCTIONS[drawn]),
    report,
    sources={'annotations': annotations, 'images': images, 'prompts': prompts},
    inputs=[pathlib.Path(annotations)],
    settings={'drawn': drawn},
    overwrite=overwrite,
    workers=workers if source.parallel else 1,
    finish=finish,
  )
  return target, report


def _split_uids(
  uids: Iterable[str], source: ImageFolder, dev: float, test: float, report: Report
) -> dict[str, set[str]]:
  """Returns the uids with image and prompt by split; reports the others."""
  splits: dict[str, set[str]] = {split: set() for split in schema.SPLITS}
  for uid in uids:
    prompt = source.prompts.get(uid)
    split = writing.assign_split(prompt, dev, test) if prompt else schema.SPLITS[0]
    report.records[split] += 1
    if uid not in source.locations:
      report.add(split, uid, 'missing_image', 'uid not found among the images')
    elif not prompt:
      detail = source.unprompted.get(uid, 'the table has no prompt for it')
      report.add(split, uid, 'missing_prompt', detail)
    else:
      splits[split].add(uid)
      report.matched[split] += 1
      for reason, details in (
        ('repeated_image', source.repeated),
        ('repeated_prompt', source.conflicts),
      ):
        if uid in details:
          report.add(split, uid, reason, details[uid])
  return splits


def _records(
  annotations: Mapping[str, list[Annotation]],
  source: ImageFolder,
  draw: Draw,
  samples: Sequence[AnnotatedImage],
  note: parts.Note,
) -> Iterator[tuple[AnnotatedImage, schema.Record | None]]:
  by_uid = {sample.uid: sample for sample in samples}
  for uid, image in source.read(by_uid):
    sample, record = by_uid[uid], None
    try:
      record = make_record(uid, image, sample.prompt, annotations[uid], draw)
    except ImageError as error:
      note(sample, 'unreadable_image', str(error))
    except InputError as error:
      note(sample, 'invalid_annotation', str(error))
    yield sample, record


def make_record(
  uid: str, image: bytes, prompt: str, annotations: list[Annotation], draw: Draw
) -> schema.Record:
  """Returns the record of one image; its maps have the image's size.

  Raises:
    ImageError: the image cannot be read.
    InputError: an annotation does not fit image or prompt.
  """
  height, width = decode_image(image).shape[:2]
  tokens = tuple(label_words.label_tokens(prompt))
  labels = consolidate(annotations, tokens, height, width, draw)
  implausibility, misalignment = (
    b'' if heat is None else encode_map(heat) for heat in labels.maps
  )
  return schema.Record(
    uid=uid,
    image=image,
    prompt=prompt,
    tokens=tokens,
    keyword_labels=labels.keyword_labels,
    scores=labels.scores,
    implausibility_map=implausibility,
    misalignment_map=misalignment,
    keyword_shares=labels.misaligned,
  )
