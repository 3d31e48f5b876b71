"""Report of what happened to each sample when a data set was prepared."""

import collections
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from rahf.data import schema
from rahf.errors import InputError

# Reason -> its label in the printed table, grouped by the consequence.
DROPPED = {
  'missing_image': 'image not found',
  'missing_prompt': 'prompt not found',
  'unreadable_image': 'image unreadable',
  'unreadable_row': 'row unreadable',
  'duplicate_uid': 'uid in an earlier row, too',
  'duplicate_label': 'uid labelled twice',
  'invalid_annotation': 'annotation does not fit image or prompt',
}
MASKED = {
  'label_mismatch': 'keyword labels do not fit the prompt',
  'invalid_label': 'keyword labels other than 0 and 1',
  'invalid_score': 'score outside its scale',
  'unreadable_map': 'map unreadable',
}
# If most labels have one of these, the format is another, and the rest cannot be
# trusted either: a 1 on a scale to 5 looks like a valid 1.0.
WRONG_FORMAT = ('invalid_score', 'invalid_label')
KEPT = {
  'repeated_image': 'image in several places, first used',
  'repeated_prompt': 'several prompts, first used',
  'long_text': 'text longer than models read',
}
_GROUPS = {
  'dropped': ('sample dropped', DROPPED),
  'masked': ('only this label masked', MASKED),
  'kept': ('kept unchanged', KEPT),
}


class Line(NamedTuple):
  """One thing that happened to one sample."""

  split: str
  uid: str
  reason: str
  detail: str


class Report:
  """Counts per split, and a line for each sample dropped, masked or ambiguous.

  Attributes:
    unit: what the input has, for the table.
    records: split -> number of these.
    matched: split -> samples whose image and prompt were found.
    prepared: split -> samples written.
    lines: problems of single samples.
    notes: sentences about whole splits.
  """

  def __init__(self, unit: str = 'annotated samples'):
    self.unit = unit
    self.records: collections.Counter[str] = collections.Counter()
    self.matched: collections.Counter[str] = collections.Counter()
    self.prepared: collections.Counter[str] = collections.Counter()
    self.lines: list[Line] = []
    self.notes: list[str] = []

  def add(self, split: str, uid: str, reason: str, detail: str) -> None:
    """Adds a line; `reason` is a key of DROPPED, MASKED or KEPT."""
    self.lines.append(Line(split, uid, reason, detail))

  def count(self, split: str, reason: str) -> int:
    """Returns the number of lines of a split for a reason."""
    return sum((line.split, line.reason) == (split, reason) for line in self.lines)

  def note_empty(self, splits: Mapping[str, Collection]) -> None:
    """Adds a note for each empty split.

    Raises:
      InputError: the train split is empty.
    """
    if not splits['train']:
      raise InputError('no image is left to train on; make --dev and --test smaller')
    for split in schema.SPLITS:
      if not splits[split]:
        self.notes.append(
          f'the {split} split is empty, since no prompt was assigned to it; make '
          f'--{split} larger, or choose another split in config.eval.split, '
          'config.keywords.threshold_split and config.eval.final_split'
        )

  def note_linked(self, folders: Sequence[pathlib.Path]) -> None:
    """Adds a note about symlinked folders, which are not searched."""
    if folders:
      self.notes.append(
        f'{len(folders)} symlinked folders were not searched (first: {folders[0]}); '
        'move their images into the folder itself'
      )

  def check_prepared(self) -> None:
    """Checks that labels have the expected format and that matched splits have records.

    Raises:
      InputError: they do not; gives the first reason.
    """
    total = sum(self.prepared.values())
    for reason in WRONG_FORMAT:
      lines = [line for line in self.lines if line.reason == reason]
      if 2 * (count := len({line.uid for line in lines})) > total:
        raise InputError(
          f'{MASKED[reason]} in {count} of {total} images; first, uid {lines[0].uid}: '
          f'{lines[0].detail}. The labels are in another format: convert them first'
        )
    for split in schema.SPLITS:
      if self.prepared[split] or not self.matched[split]:
        continue
      first = next(
        line
        for line in self.lines
        if line.split == split
        and line.reason in ('unreadable_image', 'invalid_annotation')
      )
      raise InputError(
        f'none of the {self.matched[split]} images of {split} can be used; first, '
        f'{first.uid}: {first.detail}'
      )

  def write(self, path: os.PathLike, sources: dict[str, str | None]) -> None:
    """Writes the report as JSON: sources, counts per split, lines by reason."""
    splits = {
      split: {
        'records': self.records[split],
        'matched': self.matched[split],
        'prepared': self.prepared[split],
        **{
          group: {reason: self.count(split, reason) for reason in reasons}
          for group, (_, reasons) in _GROUPS.items()
        },
      }
      for split in schema.SPLITS
    }
    samples: dict[str, list[dict[str, str]]] = {
      reason: [] for _, reasons in _GROUPS.values() for reason in reasons
    }
    for split, uid, reason, detail in self.lines:
      samples[reason].append({'split': split, 'uid': uid, 'detail': detail})
    content = {
      'sources': sources,
      'splits': splits,
      'notes': self.notes,
      'samples': samples,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    pathlib.Path(path).write_text(text + '\n', encoding='utf-8')

  def table(self) -> str:
    """Returns the counts as a table, without reasons that never occurred."""
    rows = [
      ('', schema.SPLITS),
      *(
        (title, [counter[split] for split in schema.SPLITS])
        for title, counter in (
          (self.unit, self.records),
          ('image and prompt found', self.matched),
          ('prepared', self.prepared),
        )
      ),
    ]
    for title, reasons in _GROUPS.values():
      counted = [
        (f'  {label}', [self.count(split, reason) for split in schema.SPLITS])
        for reason, label in reasons.items()
      ]
      counted = [row for row in counted if any(row[1])]
      if counted:
        rows += [(title, ()), *counted]
    return '\n'.join(
      (f'{title:40}' + ''.join(f'{_grouped(cell):>9}' for cell in cells)).rstrip()
      for title, cells in rows
    )


def _grouped(cell: str | int) -> str:
  return cell if isinstance(cell, str) else f'{cell:,}'
