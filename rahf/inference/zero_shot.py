"""Answers questions about images with a CLIP that was not trained on them.

Each answer is described by texts; its embedding is the mean of theirs (Radford et al.,
2021, section 3.1.4). The probabilities of the answers are the softmax of the
similarities, divided by a temperature that can be chosen on images with known answers
(Guo et al., 2017): a CLIP's own similarities are often too sure.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
from jaxtyping import Array, Float, UInt8

from rahf.data.attributes.questions import Questions
from rahf.data.attributes.table import UNKNOWN, Attributes
from rahf.data.images import clip_image
from rahf.errors import InputError
from rahf.evaluation.image_features import Extractor, on_devices
from rahf.inference.clip_model import ClipModel
from rahf.models import clip
from rahf.models.clip import CLIP

# The logarithm of a temperature that calibration may choose.
_LOG_TEMPERATURES = (-5, 5)


class Calibration(NamedTuple):
  """How a temperature was chosen on N images.

  Attributes:
    temperature: similarities are divided by it.
    images: N, with a known answer.
    accuracy: share whose most likely answer is the known one; no temperature changes
      it.
    nats_before, nats: mean negative logarithm of the probability of the known answers
      with temperature 1 and with this one; lower is better.
  """

  temperature: float
  images: int
  accuracy: float
  nats_before: float
  nats: float

  @property
  def summary(self) -> str:
    low, high = np.exp(_LOG_TEMPERATURES)
    doubt = ''
    if not 1.01 * low < self.temperature < 0.99 * high:
      doubt = ' (the limit: the images are too few, or all answered right or wrong)'
    return (
      f'temperature {self.temperature:.3g}{doubt}, chosen on {self.images:,} images, '
      f'of which {self.accuracy:.1%} are answered right; {self.nats_before:.3f} nats '
      f'before, {self.nats:.3f} now'
    )


class ZeroShot:
  """The questions as a CLIP sees them."""

  def __init__(self, model: ClipModel, questions: Questions):
    """Embeds the texts.

    Raises:
      InputError: a text is longer than the model reads.
    """
    self._model, self._questions = model, questions
    self._texts = {
      name: np.stack([self._embed_texts(name, texts) for texts in answers.values()])
      for name, answers in questions.items()
    }

  def extractor(self) -> Extractor:
    """Returns what turns images into features, for `image_features.extract`."""
    module = CLIP(self._model.description.model)

    def prepare(pixels: UInt8[np.ndarray, 'H W 3']) -> Float[np.ndarray, 'S S 3']:
      return clip_image.normalised(self._model.resize(pixels))

    def embed(params: Any, images: Float[Array, 'B S S 3']) -> Float[Array, 'B D']:
      return clip.normalised(
        module.apply({'params': params}, images, method=CLIP.image_features)
      )

    return Extractor('CLIP', prepare, on_devices(embed, self._model.params))

  def similarities(self, features: Float[np.ndarray, 'N D']) -> dict[str, np.ndarray]:
    """Returns the similarity of each image with each answer, [N, A], by question."""
    scale = self._model.description.scale
    return {
      name: scale * np.float64(features) @ texts.T
      for name, texts in self._texts.items()
    }

  def answer(
    self,
    uids: Sequence[str],
    similarities: Mapping[str, Float[np.ndarray, 'N A']],
    temperatures: Mapping[str, float],
  ) -> Attributes:
    """Returns the most likely answers.

    Args:
      uids: of the images.
      similarities: of `similarities`.
      temperatures: by question; 1 for those without.
    """
    answers, confidences = {}, {}
    for name, values in similarities.items():
      shares = scipy.special.softmax(values / temperatures.get(name, 1.0), axis=1)
      known = [*self._questions[name]]
      answers[name] = tuple(known[best] for best in shares.argmax(1))
      confidences[name] = shares.max(1)
    return Attributes(tuple(uids), answers, confidences)

  def calibrate(
    self,
    similarities: Mapping[str, Float[np.ndarray, 'N A']],
    known: Attributes,
  ) -> dict[str, Calibration]:
    """Chooses temperatures for the questions that `known` answers.

    Args:
      similarities: of the images of `known`, in its order.
      known: valid answers, see `check_known`.
    """
    found = {}
    for name, values in similarities.items():
      column = known.answers.get(name, ())
      rows = [row for row, answer in enumerate(column) if answer != UNKNOWN]
      if not rows:
        continue
      options = [*self._questions[name]]
      right = np.array([options.index(column[row]) for row in rows])
      found[name] = calibrate(values[rows], right)
    return found

  def _embed_texts(self, name: str, texts: Sequence[str]) -> Float[np.ndarray, 'D']:
    tokens = [self._model.tokenise(text) for text in texts]
    for text, one in zip(texts, tokens, strict=True):
      if one.truncated:
        raise InputError(f'{name}: the text {text!r:.80} is too long for this CLIP')
    module = CLIP(self._model.description.model)
    features = module.apply(
      {'params': self._model.params},
      jnp.asarray(np.stack([one.text for one in tokens])),
      method=CLIP.text_features,
    )
    mean = np.asarray(clip.normalised(features), np.float64).mean(0)
    return mean / np.linalg.norm(mean)


def check_known(questions: Questions, known: Attributes, where: str) -> None:
  """Checks answers with which a CLIP is to be calibrated.

  Args:
    where: they come from, for errors.

  Raises:
    InputError: an answer is not among those of its question, or there are none.
  """
  answered = {name: {*known.answers.get(name, ())} - {UNKNOWN} for name in questions}
  for name, answers in answered.items():
    if wrong := sorted(answers - questions[name].keys()):
      raise InputError(
        f'{where}: {name} has the answer {wrong[0]!r:.80}, but the question only '
        f'{", ".join(questions[name])}'
      )
  if not any(answered.values()):
    raise InputError(f'{where} answers none of the questions {", ".join(questions)}')


def calibrate(
  similarities: Float[np.ndarray, 'N A'], right: Sequence[int]
) -> Calibration:
  """Chooses the temperature with which the right answers are most likely.

  Args:
    right: the column of each image's answer.
  """

  def nats(log_temperature: float) -> float:
    scaled = similarities / np.exp(log_temperature)
    log_shares = scipy.special.log_softmax(scaled, axis=1)
    return float(-log_shares[np.arange(len(right)), right].mean())

  best = scipy.optimize.minimize_scalar(
    nats, bounds=_LOG_TEMPERATURES, method='bounded', options={'xatol': 1e-6}
  )
  return Calibration(
    temperature=float(np.exp(best.x)),
    images=len(right),
    accuracy=float(np.mean(similarities.argmax(1) == right)),
    nats_before=nats(0.0),
    nats=float(best.fun),
  )
