"""A trained RAHF as a scorer.

  model = rahf.load('runs/quickstart/export')
  for feedback in model.score(['a.png', 'b.png'], 'a red circle'):
    print(feedback.scores, feedback.keywords)
    feedback.overlay('implausibility').show()

Scores are in [0, 1], higher is better: plausibility, alignment, aesthetics, overall.
Maps are in [0, 1], higher is worse: implausibility, misalignment. Keywords are words of
the prompt with the probability in [0, 1] that the image misses them, higher is worse;
words end at any white space and at , . ? ! " : ;

Axis letters: N images, B batch, K texts, L tokens, H W size of an image, S that of the
model.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from rahf.data import label_words, schema
from rahf.data.images import codec
from rahf.data.pipeline.decoding import PromptRow, encode_prompt
from rahf.data.tokenizer import Tokenizer
from rahf.inference.feedback import Feedback
from rahf.inference.model_directory import Description
from rahf.inference.scorer import Example, Scorer
from rahf.inference.step import (
  ANY_THRESHOLD,
  encode_and_score,
  from_pixels,
  make_infer,
  scores_and_maps,
)
from rahf.models.rahf import RAHF, Outputs


class Model(Scorer):
  """A trained RAHF with its parameters on the devices.

  Attributes:
    description: the contents of model.json.
    tokenizer: for the prompts.
    infer: the step as a pure function of (params, image in [-1, 1], text, word_end),
      not compiled (`step.make_infer`).
  """

  description: Description

  def __init__(
    self,
    description: Description,
    params: Any,
    tokenizer: Tokenizer,
    *,
    batch_size: int = 64,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts the parameters on the devices; see `open_scorer.load`."""
    super().__init__(description, params, batch_size=batch_size, devices=devices)
    self.tokenizer = tokenizer
    self.infer = make_infer(
      RAHF(description.model),
      decoder=description.decoder,
      mark_ids=tokenizer.mark_ids,
      length=description.target_length,
    )
    self._infer_pixels = jax.jit(from_pixels(self.infer))
    self._scores_of_pixels = jax.jit(self._scores)

  def tokenise(self, text: str) -> PromptRow:
    """Tokenises a prompt to the `text` and `word_end` that `infer` takes."""
    description = self.description
    if description.joined_words:  # The words, and how many there are, stay the same.
      text = ' '.join(label_words.label_tokens(text))
    return encode_prompt(
      text,
      self.tokenizer,
      description.model.variant,
      description.text_length,
      label_words.word_spans(text),
      description.tasks,
    )

  def resize(self, pixels: UInt8[np.ndarray, 'H W 3']) -> UInt8[np.ndarray, 'S S 3']:
    return codec.resize(pixels, self.description.image_size)

  def scores_and_maps(
    self, params: Any, pixels: Float[Array, 'N H W 3'], text: Int[Array, 'N K L']
  ) -> tuple[dict[str, Float[Array, 'N']], dict[str, Float[Array, 'N S S']]]:
    return scores_and_maps(self.description.model, params, pixels, text)

  def _scores(
    self, params: Any, pixels: UInt8[Array, 'B S S 3'], text: Int[Array, 'B K L']
  ) -> Float[Array, 'B 4']:
    image = codec.to_signed(pixels.astype(jnp.float32) / 255)
    # XLA leaves out the maps, which nothing reads.
    _, found = encode_and_score(RAHF(self.description.model), params, image, text)
    return found.scores

  def _score_batch(
    self, examples: Sequence[Example], scores_only: bool
  ) -> list[Feedback]:
    if scores_only:
      return self._only_scores(examples)
    return [
      self._feedback(example, found)
      for example, found in zip(examples, self._run(examples), strict=False)
    ]

  def _only_scores(self, examples: Sequence[Example]) -> list[Feedback]:
    found = self._scores_of_pixels(self.params, *self._put(examples, 'text'))
    return [
      Feedback(
        prompt=example.prompt,
        size=(example.height, example.width),
        scores=dict(zip(schema.SCORES, map(float, scores), strict=True)),
        truncated=example.row.truncated,
        image=example.image,
      )
      for example, scores in zip(examples, jax.device_get(found), strict=False)
    ]

  def _run(self, examples: Sequence[Example]) -> Iterator[Outputs]:
    """Yields the outputs of each row, without the batch axis, padding included."""
    batch = self._put(examples, 'text', 'word_end')
    found = jax.device_get(self._infer_pixels(self.params, *batch))
    return (
      jax.tree.map(lambda array, row=row: array[row], found)
      for row in range(len(found.scores))
    )

  def _feedback(self, example: Example, found: Outputs) -> Feedback:
    spans = label_words.word_spans(example.prompt)
    judged = self._judged(example.row, found.p_misaligned)
    threshold = self.description.threshold
    return Feedback(
      prompt=example.prompt,
      size=(example.height, example.width),
      scores=dict(zip(schema.SCORES, map(float, found.scores), strict=True)),
      keywords=[
        (example.prompt[start:end], p)
        for (start, end), p in zip(spans, judged, strict=True)
      ],
      threshold=ANY_THRESHOLD if threshold is None else threshold,
      truncated=example.row.truncated or any(map(math.isnan, judged)),
      # A copy, since the row is a view of its whole batch.
      small_maps=dict(zip(schema.MAPS, found.maps.copy(), strict=True)),
      image=example.image,
    )

  def _judged(self, row: PromptRow, p: Float[np.ndarray, 'L']) -> list[float]:
    """Returns p of each word, NaN for words after a cut.

    The sequential decoder also has no room for the last words if it makes many marks.
    """
    room, mark = math.inf, 0
    if self.description.decoder != 'parallel':
      room, mark = self.description.target_length, len(self.tokenizer.mark_ids)
    judged, marks = [], 0
    for end in row.pieces.word_ends:
      inside = end < len(p) and end + marks < room
      judged.append(float(p[end]) if inside else math.nan)
      marks += mark * (judged[-1] > 0.5)
    return judged
