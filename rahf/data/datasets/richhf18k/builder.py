"""Builds RichHF-18K from the released labels, with images and prompts joined by uid.

Nothing is dropped silently: samples without a readable image or a prompt are dropped,
unusable labels are masked one by one, and the report lists every case.
"""

import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from rahf.data import label_words, schema
from rahf.data.datasets.joining import parts, writing
from rahf.data.datasets.joining.image_folder import ImageFolder
from rahf.data.datasets.joining.parts import AnnotatedImage
from rahf.data.datasets.joining.report import Report
from rahf.data.datasets.richhf18k import label_files
from rahf.data.datasets.richhf18k.label_files import Annotation
from rahf.data.datasets.richhf18k.pickapic import PickAPic
from rahf.data.images.codec import ImageError, decode_image, decode_map
from rahf.data.storage import manifest
from rahf.errors import InputError

VERSION = '1.0.0'

Source = PickAPic | ImageFolder
# Reason and detail.
Note = Callable[[str, str], None]


def prepare_richhf18k(
  data_dir: os.PathLike | str,
  *,
  labels: os.PathLike | str,
  images: os.PathLike | str,
  prompts: os.PathLike | str | None = None,
  workers: int | None = None,
  overwrite: bool = False,
) -> tuple[pathlib.Path, Report]:
  """Joins the released labels with images and prompts and writes the data set.

  A uid that is annotated in several splits stays only in the first of test, dev and
  train, so that no evaluation image is trained on.

  Args:
    data_dir: where to write; the result is `<data_dir>/richhf18k/<version>/`.
    labels: folder of the release's {train,dev,test}.tfrecord.
    images: folder of Pick-a-Pic v1 parquet files, searched recursively; with
      `prompts`, folder or tar archive of image files named <uid>.<extension>.
    prompts: CSV, TSV, JSONL or parquet table of uid and prompt.
    workers: number of threads; None for one per core.
    overwrite: replace an existing data set.

  Returns:
    The prepared directory, with report.json in it, and the report.

  Raises:
    InputError: a path is missing, a file is damaged, no image is found, or the
      directory exists.
  """
  target = writing.target_directory(data_dir, 'richhf18k', VERSION, overwrite)
  if not (pathlib.Path(images).is_dir() or prompts):
    raise InputError(f'--images {images}: no such folder')
  report = Report()
  samples = _read_labels(labels, report)
  wanted = [uid for split in samples.values() for uid in split]
  source = ImageFolder(images, prompts, wanted) if prompts else PickAPic(images, wanted)
  samples = _match(samples, source, report)
  report.note_linked(source.linked)
  if not any(samples.values()):
    detail = source.unprompted.get(wanted[0], '') if wanted else ''
    raise InputError(
      f'none of the {len(wanted)} annotated images has both an image and a prompt in '
      f'{images}{f" and {prompts}" if prompts else ""}; the first wanted uid is '
      f'{wanted[0]!r}{detail and f", but {detail}"}'
      if wanted
      else f'--labels {labels}: the files contain no records; download them again'
    )
  writing.write(
    target,
    [
      AnnotatedImage(split, uid, source.prompts[uid], location)
      for uid, location in source.locations.items()
      for split, found in samples.items()
      if uid in found
    ],
    functools.partial(_records, samples, source),
    report,
    sources={'labels': labels, 'images': images, 'prompts': prompts},
    inputs=[*itertools.chain.from_iterable(label_files.find_files(labels).values())],
    overwrite=overwrite,
    workers=workers if source.parallel else 1,
  )
  return target, report


def _records(
  annotated: Mapping[str, Mapping[str, Annotation]],
  source: Source,
  samples: Sequence[AnnotatedImage],
  note: parts.Note,
) -> Iterator[tuple[AnnotatedImage, schema.Record | None]]:
  by_uid = {sample.uid: sample for sample in samples}
  for uid, image in source.read(by_uid):
    sample = by_uid[uid]
    annotation = annotated[sample.split][uid]
    noted = functools.partial(note, sample)
    yield sample, join(annotation, image, sample.prompt, noted)


def join(
  annotation: Annotation, image: bytes, prompt: str, note: Note
) -> schema.Record | None:
  """Returns the record of one image, or None if the image cannot be read.

  Args:
    annotation: the released labels.
    image: encoded bytes, stored unchanged.
    prompt: the text the image was generated from.
    note: called with (reason, detail) for each dropped sample or masked label.
  """
  try:
    decode_image(image)
  except ImageError as error:
    note('unreadable_image', str(error))
    return None
  tokens = tuple(label_words.label_tokens(prompt))
  maps = zip(schema.MAPS, annotation.maps, strict=True)
  implausibility, misalignment = (_checked_map(*item, note) for item in maps)
  scores = zip(schema.SCORES, annotation.scores, strict=True)
  return schema.Record(
    uid=annotation.uid,
    image=image,
    prompt=prompt,
    tokens=tokens,
    keyword_labels=_keyword_labels(annotation.keyword_labels, tokens, note),
    scores=tuple(_checked_score(*item, note) for item in scores),
    implausibility_map=implausibility,
    misalignment_map=misalignment,
  )


def _keyword_labels(text: str, tokens: tuple[str, ...], note: Note) -> tuple[int, ...]:
  marks = text.split()
  if not set(marks) <= {'0', '1'}:
    note('invalid_label', f'labels {text!r}')
    return ()
  if len(marks) != len(tokens):
    note('label_mismatch', f'{len(marks)} labels, {len(tokens)} words: {tokens}')
    return ()
  return tuple(map(int, marks))


def _checked_score(name: str, value: float, note: Note) -> float:
  if 0 <= value <= 1:
    return value
  note('invalid_score', f'{name} {value}, not in [0, 1]')
  return float('nan')


def _checked_map(name: str, data: bytes, note: Note) -> bytes:
  try:
    decode_map(data)
  except ImageError as error:
    note('unreadable_map', f'{name}: {error}')
    return b''
  return data


def _read_labels(
  folder: os.PathLike | str, report: Report
) -> dict[str, dict[str, Annotation]]:
  files = label_files.find_files(folder)
  samples: dict[str, dict[str, Annotation]] = {split: {} for split in schema.SPLITS}
  owner: dict[str, str] = {}
  for split in reversed(schema.SPLITS):
    for path in files[split]:
      for annotation in label_files.read(path):
        report.records[split] += 1
        first = owner.setdefault(annotation.uid, split)
        if first != split or annotation.uid in samples[split]:
          report.add(
            split, annotation.uid, 'duplicate_label', f'already taken from {first}'
          )
        else:
          samples[split][annotation.uid] = annotation
  compare_with_release(report)
  return samples


def compare_with_release(report: Report) -> None:
  """Adds a note if the number of records differs from the release."""
  if report.records != manifest.RELEASE_RECORDS:
    found, expected = (
      ', '.join(f'{split} {counts[split]:,}' for split in schema.SPLITS)
      for counts in (report.records, manifest.RELEASE_RECORDS)
    )
    report.notes.append(
      f'the label files contain {found} records, the release {expected}; unless you '
      'use a subset on purpose, download them again'
    )


def _match(
  samples: dict[str, dict[str, Annotation]], source: Source, report: Report
) -> dict[str, dict[str, Annotation]]:
  """Returns the samples whose image and prompt were found; reports the others."""
  matched = {split: {} for split in samples}
  for split, found in samples.items():
    for uid, annotation in found.items():
      if uid not in source.locations:
        report.add(split, uid, 'missing_image', 'uid not found among the images')
      elif uid not in source.prompts:
        detail = source.unprompted.get(uid, 'the image has no prompt')
        report.add(split, uid, 'missing_prompt', detail)
      else:
        matched[split][uid] = annotation
        for reason, details in (
          ('repeated_image', source.repeated),
          ('repeated_prompt', source.conflicts),
        ):
          if uid in details:
            report.add(split, uid, reason, details[uid])
    report.matched[split] = len(matched[split])
    if found and not matched[split]:
      report.notes.append(f'{split} is left out: none of its images were found')
  return matched
