"""Reads all of a prepared data set and reports problems."""

import collections
import os
from collections.abc import Iterator

from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.data.storage import manifest, prepared, records
from rahf.data.storage.records import RecordSplit


def verify(path: os.PathLike | str) -> tuple[dict[str, int], list[str]]:
  """Checks every record of a prepared directory, with a progress bar.

  Checks that shards match the manifest (sizes, numbers of records, checksums), records
  the schema, and labels the words; that images and maps can be decoded, scores are in
  range, and uids are unique across splits.

  Returns:
    Number of records read per split, and one sentence per problem, with file and uid.

  Raises:
    InputError: the directory is not a prepared data set.
  """
  directory, names = prepared.find(path)
  counts = dict.fromkeys(names, 0)
  sizes: dict[str, int] = {}
  problems = manifest.check(directory)
  locations = collections.defaultdict(list)
  for name in names:
    try:
      split = records.open_split(directory, name)
    except ValueError as error:
      problems.append(str(error))
      continue
    sizes[name] = len(split)
    results = prepared.map_records(split, _check)
    for position, (uid, found) in enumerate(results):
      problems += found
      if uid is not None:
        counts[name] += 1
        locations[uid].append(split.where(position))
  problems += manifest.compare_with_release(directory, sizes)
  problems += [
    f'uid {uid!r} is not unique: {" ".join(where)} in this split or another'
    for uid, where in locations.items()
    if len(where) > 1
  ]
  return counts, problems


def _check(split: RecordSplit, position: int) -> tuple[str | None, list[str]]:
  """Returns the uid (None if the record cannot be read) and the problems."""
  try:
    record = split[position]
  except ValueError as error:
    return None, [str(error)]
  where = f'{split.where(position)} uid {record.uid!r}'
  return record.uid, [f'{where}: {problem}' for problem in check_record(record)]


def check_record(record: schema.Record) -> Iterator[str]:
  """Yields a sentence for each violation of `rahf.data.schema` in a record."""
  if not record.uid:
    yield 'uid is empty'
  try:
    codec.decode_image(record.image)
  except codec.ImageError as error:
    yield f'image: {error}'
  for name in schema.MAPS:
    data = getattr(record, f'{name}_map')
    try:
      if data:
        codec.decode_map(data)
    except codec.ImageError as error:
      yield f'{name}_map: {error}'
  if record.tokens != tuple(label_words.label_tokens(record.prompt)):
    yield f'tokens {record.tokens} are not the words of {record.prompt!r}'
  if record.keyword_labels and len(record.keyword_labels) != len(record.tokens):
    yield f'{len(record.keyword_labels)} keyword_labels, {len(record.tokens)} tokens'
  if len(record.keyword_shares) not in (0, len(record.tokens)):
    yield f'{len(record.keyword_shares)} keyword_shares, {len(record.tokens)} tokens'
  if not all(0 <= share <= 1 for share in record.keyword_shares):
    yield f'keyword_shares {record.keyword_shares} outside [0, 1]'
  if not set(record.keyword_labels) <= {0, 1}:
    yield f'keyword_labels {record.keyword_labels} other than 0 and 1'
  if len(record.scores) != len(schema.SCORES):
    yield f'{len(record.scores)} scores, not {len(schema.SCORES)}'
  # Written so that NaN (not annotated) passes.
  if any(score < 0 or score > 1 for score in record.scores):
    yield f'scores {record.scores} outside [0, 1]'
