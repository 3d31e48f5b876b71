"""Generates preference pairs of shapes, in the columns of Pick-a-Pic.

Six generators draw the same prompts with known, different rates of defects. A simulated
user sees two images with the overall score that `annotators.latent_scores` defines,
each with noise, and prefers the better one; below a difference of TIE it is a tie. So
the best possible accuracy and the true order of the generators are known.

The folder has a parquet file for each split, and truth.json:
  quality    by generator: mean latent overall score of its images, higher is better
  ceilings   by split: the accuracies of `evaluation.preference_accuracy` that a scorer
             expects who sees the latent scores
"""

import json
import math
import os
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from jaxtyping import Float
from scipy import special
from tqdm import tqdm

from rahf.data.datasets.shapes import annotators
from rahf.data.datasets.shapes.prompt import write_prompt
from rahf.data.datasets.shapes.render import render
from rahf.data.datasets.shapes.scene import (
  USUAL,
  Defects,
  Scene,
  draw_request,
  sample_request,
)
from rahf.data.datasets.shapes.workers import workers
from rahf.data.datasets.shapes.world import WORLDS
from rahf.data.images.codec import encode_png
from rahf.data.preferences.pair_truth import TRUTH
from rahf.data.preferences.pairs import COLUMNS, IMAGES
from rahf.data.schema import PAIR_SPLITS, SCORES
from rahf.errors import InputError
from rahf.fileio.staged_folder import staged

# In the folder's name; other pairs get another number.
VERSION = 1
GENERATORS = {
  'gen-a': Defects(false=(0.3, 0.4, 0.2, 0.1), damages=(0.9, 0.1, 0, 0)),
  'gen-b': Defects(false=(0.85, 0.15, 0, 0), damages=(0.9, 0.1, 0, 0)),
  'gen-c': USUAL,
  'gen-d': Defects(false=(0.7, 0.25, 0.05, 0), damages=(0.7, 0.25, 0.05, 0)),
  'gen-e': Defects(false=(0.1, 0.4, 0.35, 0.15), damages=(0.1, 0.3, 0.3, 0.3)),
  'gen-f': Defects(false=(0.8, 0.2, 0, 0), damages=(0.2, 0.4, 0.3, 0.1)),
}
# Users' standard deviation for each image, and the difference below which they see a
# tie; in Likert steps.
NOISE = annotators.SCORE_NOISE
TIE = 0.35
# Prompts of these splits have 1, 2, 3 or 4 pairs; of the others a single one.
_SHARED_PROMPTS = ('train', 'validation', 'test')
_PAIRS_OF_PROMPTS = np.cumsum([0, 1, 2, 3, 4])
# Pairs in a row group.
_CHUNK = 32


class GeneratedPair(NamedTuple):
  """A pair before it becomes a row.

  Attributes:
    number: of its prompt in the split.
    generators: of both images, keys of GENERATORS.
    latent: overall score of both images without noise.
    preference: of the user, the probability that the first image is preferred.
  """

  number: int
  prompt: str
  generators: tuple[str, str]
  scenes: tuple[Scene, Scene]
  latent: tuple[float, float]
  preference: float
  textures: tuple[np.random.Generator, np.random.Generator]


def prepare_pairs(
  data_dir: str | os.PathLike,
  *,
  image_size: int = 64,
  train: int = 8000,
  validation_unique: int = 500,
  test_unique: int = 1000,
  seed: int = 0,
  world: str = 'full',
) -> pathlib.Path:
  """Generates the pairs unless they exist.

  Args:
    data_dir: the folder of data sets; these go into a subfolder.
    image_size: height and width in pixels, at least 64.
    train, validation_unique, test_unique: number of pairs.
    seed: of all pairs.
    world: one of `WORLDS`.

  Returns:
    The folder of the parquet files.

  Raises:
    InputError: a number does not fit, the world is unknown, or `data_dir` is a file.
  """
  counts = {
    'train': train,
    'validation_unique': validation_unique,
    'test_unique': test_unique,
  }
  if os.path.exists(data_dir) and not os.path.isdir(data_dir):
    raise InputError(f'{data_dir} is a file; give a folder')
  if world not in WORLDS:
    raise InputError(f'world {world!r} is unknown; use one of {tuple(WORLDS)}')
  sizes = '-'.join(map(str, counts.values()))
  suffix = '' if world == 'full' else f'-{world}'
  name = f'{image_size}px-{sizes}-seed{seed}{suffix}-v{VERSION}'
  folder = epath.Path(data_dir) / 'shapes_pairs' / name
  if not folder.exists():
    folder.parent.mkdir(parents=True, exist_ok=True)
    with staged(folder) as new:
      new.mkdir()
      latents = {
        split: _write_split(new, split, count, seed, image_size, world)
        for split, count in counts.items()
      }
      (new / TRUTH).write_text(json.dumps(_truth(latents), indent=2) + '\n')
  return pathlib.Path(folder)


def make_pair(seed: int, split: str, index: int, world: str = 'full') -> GeneratedPair:
  """Makes one pair, a pure function of these arguments."""
  split_number = PAIR_SPLITS.index(split)
  number = _prompt_number(split, index)
  prompt_seed = np.random.SeedSequence([seed, split_number, 0, number])
  request_rng, prompt_rng = _generators(prompt_seed, 2)
  request = sample_request(request_rng, WORLDS[world])
  pair_seed = np.random.SeedSequence([seed, split_number, 1, index])
  choice, first, second, user, *textures = _generators(pair_seed, 6)
  names = [list(GENERATORS)[i] for i in choice.permutation(len(GENERATORS))[:2]]
  scenes = tuple(
    draw_request(rng, request, GENERATORS[name], WORLDS[world])
    for rng, name in zip((first, second), names, strict=True)
  )
  overall = SCORES.index('overall')
  latent = tuple(annotators.latent_scores(scene)[overall] for scene in scenes)
  seen = np.array(latent) + user.normal(0, NOISE, 2)
  difference = seen[0] - seen[1]
  preference = 0.5 if abs(difference) < TIE else float(difference > 0)
  prompt = write_prompt(prompt_rng, scenes[0].groups).text
  return GeneratedPair(
    number, prompt, tuple(names), scenes, latent, preference, tuple(textures)
  )


def make_rows(chunk: tuple[int, str, range, int, int, str]) -> tuple[list[dict], list]:
  """Makes the rows of a chunk.

  Args:
    chunk: (seed, split, indices, size of the split, image_size, world).

  Returns:
    The rows by column, and for each its (generators, latent scores).
  """
  seed, split, indices, count, image_size, world = chunk
  rows, latents = [], []
  for index in indices:
    pair = make_pair(seed, split, index, world)
    rows.append(_row(pair, split, index, count, image_size))
    latents.append((pair.generators, pair.latent))
  return rows, latents


def expected_accuracies(
  latents: Iterable[tuple[tuple[str, str], tuple[float, float]]],
) -> dict[str, float]:
  """Returns the accuracies of a scorer who sees latent scores, but not users' noise.

  The names are those of `evaluation.preference_accuracy`.
  """
  differences = np.array([first - second for _, (first, second) in latents])
  first, tie, second = _label_probabilities(differences)
  # Saying tie is right with probability `tie`, and half right otherwise.
  best = np.maximum(np.maximum(first, second) + tie / 2, (1 + tie) / 2)
  decided = np.maximum(first, second).sum() / (first + second).sum()
  return {
    'accuracy/ties_half': float(best.mean()),
    'accuracy/always_tie': float(((1 + tie) / 2).mean()),
    'accuracy/ties_dropped': float(decided),
  }


def _label_probabilities(
  difference: Float[np.ndarray, 'N'],
) -> tuple[Float[np.ndarray, 'N'], ...]:
  """Returns the probabilities that users prefer the first, see a tie, the second."""
  noise = math.sqrt(2) * NOISE
  first = special.ndtr((difference - TIE) / noise)
  second = special.ndtr((-difference - TIE) / noise)
  return first, 1 - first - second, second


def _write_split(
  folder: epath.Path, split: str, count: int, seed: int, image_size: int, world: str
) -> list[tuple[tuple[str, str], tuple[float, float]]]:
  """Writes the pairs of a split; returns generators and latent scores of each."""
  schema = pa.unify_schemas([COLUMNS, IMAGES])
  chunks = [
    (seed, split, range(start, min(start + _CHUNK, count)), count, image_size, world)
    for start in range(0, count, _CHUNK)
  ]
  latents = []
  with (
    pq.ParquetWriter(folder / f'{split}-00000.parquet', schema) as writer,
    workers(count, _CHUNK) as run,
    tqdm(total=count, desc=f'pairs {split}', disable=None) as bar,
  ):
    for rows, found in run(make_rows, chunks):
      writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=_CHUNK)
      latents += found
      bar.update(len(rows))
  return latents


def _row(
  pair: GeneratedPair, split: str, index: int, count: int, image_size: int
) -> dict:
  images = [
    encode_png(render(scene, image_size, texture))
    for scene, texture in zip(pair.scenes, pair.textures, strict=True)
  ]
  uids = [f'{split}-{index:08d}-{side}' for side in (0, 1)]
  best = {1.0: uids[0], 0.0: uids[1], 0.5: 'tie'}
  return {
    'ranking_id': index,
    'user_id': 0,
    'caption': pair.prompt,
    'image_0_uid': uids[0],
    'image_1_uid': uids[1],
    'model_0': pair.generators[0],
    'model_1': pair.generators[1],
    'label_0': pair.preference,
    'label_1': 1 - pair.preference,
    'has_label': True,
    'best_image_uid': best[pair.preference],
    'are_different': True,
    'num_example_per_prompt': _pairs_of_prompt(split, index, count),
    'jpg_0': images[0],
    'jpg_1': images[1],
  }


def _prompt_number(split: str, index: int) -> int:
  """Returns the number of a pair's prompt: 1, 2, 3, 4, 1, … pairs share one."""
  if split not in _SHARED_PROMPTS:
    return index
  cycle, rest = divmod(index, int(_PAIRS_OF_PROMPTS[-1]))
  within = int(np.searchsorted(_PAIRS_OF_PROMPTS, rest, side='right')) - 1
  return 4 * cycle + within


def _pairs_of_prompt(split: str, index: int, count: int) -> int:
  """Returns how many pairs of the split have the same prompt."""
  number = _prompt_number(split, index)
  near = range(max(index - 3, 0), min(index + 4, count))
  return sum(_prompt_number(split, other) == number for other in near)


def _truth(latents: dict[str, list]) -> dict:
  scores: dict[str, list[float]] = {name: [] for name in GENERATORS}
  for pairs in latents.values():
    for names, latent in pairs:
      for name, score in zip(names, latent, strict=True):
        scores[name].append(score)
  return {
    'quality': {k: float(np.mean(v)) if v else None for k, v in scores.items()},
    'ceilings': {split: expected_accuracies(pairs) for split, pairs in latents.items()},
  }


def _generators(seed: np.random.SeedSequence, number: int) -> list[np.random.Generator]:
  """Returns separate streams, so that changing one does not affect the others."""
  return [np.random.Generator(np.random.Philox(child)) for child in seed.spawn(number)]
