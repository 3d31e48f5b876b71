"""The captions task with its data: evaluation, pictures, the captions themselves."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from rahf.data import label_words
from rahf.data.images import codec
from rahf.drawing import contact_sheet
from rahf.runtime.distributed import StopSignal
from rahf.tasks.feedback_session import FeedbackSession
from rahf.tasks.pictures import shown_rows, tile
from rahf.tasks.split_evaluator import SplitEvaluator
from rahf.training.task import Variables


class CaptionsSession(FeedbackSession):
  """The captions task with its data; a `training.task.Session`."""

  def evaluator(self) -> 'CaptionsEvaluator':
    step = self.setup.task.make_eval_step(self.setup.gather)
    return CaptionsEvaluator(self.setup, self.data, step)


class CaptionsEvaluator(SplitEvaluator):
  """Describes the images of a split, and compares with their captions."""

  headlines = ('loss/sequence', 'captions/exact', 'captions/word_f1')

  def measure(
    self, variables: Variables, split_name: str, stop: StopSignal
  ) -> dict[str, float]:
    """Returns the metrics, and keeps the captions for `lines` and `pictures`.

    loss/total and loss/sequence, cross-entropy per token in nats, and
    tokens/accuracy, all under teacher forcing; captions/exact, the share of captions
    that are predicted exactly; captions/word_f1, the mean harmonic mean of precision
    and recall of a caption's words in any order; captions/truncated, how many are cut
    at `config.data.target_length`.
    """
    sums = collections.Counter()
    split, self._found = self.data.split(split_name), []
    for found in self.outputs(variables, split_name, stop):
      for name in ('nats', 'right', 'tokens', 'truncated'):
        sums[name] += float(getattr(found, name).sum(dtype=np.float64))
      for index, ids in zip(found.index, found.captions, strict=True):
        record = split[int(index)]
        text = self.data.tokenizer.decode(ids)
        self._found.append(
          {'uid': record.uid, 'caption': record.prompt, 'predicted': text}
        )
    pairs = [
      (
        label_words.label_tokens(one['predicted']),
        label_words.label_tokens(one['caption']),
      )
      for one in self._found
    ]
    return {
      'loss/total': sums['nats'] / sums['tokens'],
      'loss/sequence': sums['nats'] / sums['tokens'],
      'tokens/accuracy': sums['right'] / sums['tokens'],
      'captions/exact': float(np.mean([found == truth for found, truth in pairs])),
      'captions/word_f1': float(np.mean([word_f1(*pair) for pair in pairs])),
      'captions/truncated': sums['truncated'],
    }

  def lines(self, split_name: str) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Returns uid, caption and predicted caption of each image."""
    del split_name
    return {'captions': self._found}

  def pictures(
    self, variables: Variables, split_name: str
  ) -> Mapping[str, Sequence[Image.Image]]:
    """Returns a contact sheet of images with both captions."""
    del variables
    split = self.data.split(split_name)
    rows = []
    for position in shown_rows(split, self.setup.config.review.examples):
      one, image = self._found[position], codec.decode_image(split[position].image)
      title = f'{one["predicted"]}   (in the data: {one["caption"]})'
      rows.append(contact_sheet.Row(title, [tile(image, one['uid'])]))
    return {'captions': [*contact_sheet.sheets(rows)]} if rows else {}


def word_f1(found: Sequence[str], truth: Sequence[str]) -> float:
  """Returns the harmonic mean of the precision and recall of words in any order."""
  common = sum((collections.Counter(found) & collections.Counter(truth)).values())
  return 2 * common / (len(found) + len(truth)) if found or truth else 1.0
