"""Makes records of generated samples and measures the noise ceiling of each metric."""

from typing import NamedTuple

import numpy as np

from rahf.data import label_words, schema
from rahf.data.datasets.shapes import annotators
from rahf.data.datasets.shapes.prompt import Prompt, write_caption, write_prompt
from rahf.data.datasets.shapes.render import render
from rahf.data.datasets.shapes.scene import (
  CLEAN,
  Scene,
  draw_request,
  sample_request,
  sample_scene,
)
from rahf.data.datasets.shapes.world import WORLDS
from rahf.data.images.codec import encode_map, encode_png
from rahf.data.labels.consolidate import Annotation, consolidate
from rahf.errors import InputError

MIN_IMAGE_SIZE = 64


class GeneratedExample(NamedTuple):
  """A generated sample before it becomes a record."""

  scene: Scene
  prompt: Prompt
  tokens: tuple[str, ...]
  annotations: list[Annotation]
  texture: np.random.Generator


def make_record(
  seed: int, split: str, index: int, image_size: int, world: str = 'full'
) -> schema.Record:
  """Makes one record, a pure function of these arguments.

  Scene, prompt and marks are the same at every image size.

  Args:
    seed: of the whole data set.
    split: one of `schema.SPLITS`.
    index: position in the split, from 0.
    image_size: height and width in pixels, at least 64.
    world: one of `WORLDS`.

  Raises:
    InputError: split or world are unknown, seed or index negative, or the image too
      small.
  """
  _check_size(image_size)
  sample = make_sample(seed, split, index, world)
  labels = consolidate(sample.annotations, sample.tokens, image_size, image_size)
  implausibility, misalignment = map(encode_map, labels.maps)
  return schema.Record(
    uid=uid_of(split, index),
    image=encode_png(render(sample.scene, image_size, sample.texture)),
    prompt=sample.prompt.text,
    tokens=sample.tokens,
    keyword_labels=labels.keyword_labels,
    scores=labels.scores,
    implausibility_map=implausibility,
    misalignment_map=misalignment,
    keyword_shares=labels.misaligned,
  )


def make_caption_record(
  seed: int, split: str, index: int, image_size: int, world: str = 'full'
) -> schema.Record:
  """Makes a record of an image without defects, and of a caption without labels.

  Takes the arguments of `make_record`. Its scenes are others than those of
  `make_record`.

  Raises:
    InputError: as `make_record`.
  """
  _check_size(image_size)
  scene_rng, texture = _streams(seed, split, index, world)[4:]
  request = sample_request(scene_rng, WORLDS[world])
  scene = draw_request(scene_rng, request, CLEAN, WORLDS[world])
  caption = write_caption(scene.groups, sizes=len(WORLDS[world].radii) > 1)
  return schema.Record.unlabelled(
    uid_of(split, index), encode_png(render(scene, image_size, texture)), caption
  )


def _check_size(image_size: int) -> None:
  if image_size < MIN_IMAGE_SIZE:
    raise InputError(
      f'image_size {image_size} is too small to tell shapes apart; use at least '
      f'{MIN_IMAGE_SIZE}'
    )


def uid_of(split: str, index: int) -> str:
  return f'{split}-{index:08d}'


def make_records(chunk: tuple[int, str, range, int, str]) -> list[schema.Record]:
  """Makes the records of one chunk, (seed, split, indices, image_size, world)."""
  seed, split, indices, image_size, world = chunk
  return [make_record(seed, split, index, image_size, world) for index in indices]


def make_caption_records(
  chunk: tuple[int, str, range, int, str],
) -> list[schema.Record]:
  """Makes the records of captions of one chunk, as `make_records`."""
  seed, split, indices, size, world = chunk
  return [make_caption_record(seed, split, index, size, world) for index in indices]


def make_sample(
  seed: int, split: str, index: int, world: str = 'full'
) -> GeneratedExample:
  """Makes the sample that `make_record` renders and consolidates."""
  scene_rng, prompt_rng, texture, marks, *_ = _streams(seed, split, index, world)
  scene = sample_scene(scene_rng, WORLDS[world])
  prompt = write_prompt(prompt_rng, scene.groups)
  tokens = tuple(label_words.label_tokens(prompt.text))
  annotations = annotators.annotate(scene, prompt.misaligned, len(tokens), marks)
  return GeneratedExample(scene, prompt, tokens, annotations, texture)


def _streams(
  seed: int, split: str, index: int, world: str
) -> list[np.random.Generator]:
  """Returns six random streams: scene, prompt, texture and marks of a sample; then
  scene and texture of a captioned image.

  Raises:
    InputError: an argument is not valid.
  """
  if split not in schema.SPLITS:
    raise InputError(f'split {split!r} is unknown; use one of {schema.SPLITS}')
  if world not in WORLDS:
    raise InputError(f'world {world!r} is unknown; use one of {tuple(WORLDS)}')
  if seed < 0 or index < 0:
    raise InputError(f'seed {seed} and index {index} must not be negative')
  # Separate streams, so that changing one does not affect the others.
  root = np.random.SeedSequence([seed, schema.SPLITS.index(split), index])
  return [np.random.Generator(np.random.Philox(child)) for child in root.spawn(6)]


def metric_ceilings(
  seed: int,
  num_samples: int,
  image_size: int,
  split: str = 'test',
  world: str = 'full',
) -> dict[str, float]:
  """Evaluates the expected labels against the consolidated ones.

  Because of annotator noise, a model can do better than this only by chance.

  Args:
    seed: of the data set.
    num_samples: how many samples to compare, from the start of the split.
    image_size: height and width of the maps in pixels.
    split: one of `schema.SPLITS`.
    world: one of `WORLDS`.

  Returns:
    The value of each metric, by the names used in evaluation results.
  """
  from rahf.metrics.correlation import plcc, srcc
  from rahf.metrics.keywords import KeywordMetrics
  from rahf.metrics.saliency import MapMetrics

  maps = {name: MapMetrics() for name in schema.MAPS}
  keywords = KeywordMetrics()
  scores = []
  for index in range(num_samples):
    sample = make_sample(seed, split, index, world)
    expected = annotators.expected_labels(
      sample.scene, sample.prompt.misaligned, len(sample.tokens), image_size, image_size
    )
    labels = consolidate(sample.annotations, sample.tokens, image_size, image_size)
    for name, prediction, truth in zip(
      schema.MAPS, expected.maps, labels.maps, strict=True
    ):
      maps[name] += MapMetrics.of(prediction, truth)
    keywords += KeywordMetrics.of(labels.keyword_labels, expected.keyword_labels)
    scores.append((expected.scores, labels.scores))
  predicted, truth = np.array(scores).transpose(1, 2, 0)
  ceilings = {}
  for name, x, y in zip(schema.SCORES, predicted, truth, strict=True):
    ceilings |= {f'{name}/plcc': plcc(x, y), f'{name}/srcc': srcc(x, y)}
  for name, metrics in maps.items():
    ceilings |= {f'{name}/{key}': value for key, value in metrics.values().items()}
  return ceilings | {f'keywords/{k}': v for k, v in keywords.values().items()}
