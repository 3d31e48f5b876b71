"""Does drawing flawed parts anew mend images, and does it matter where? An experiment.

  python benchmarks/closed_loop_inpainting.py GENERATOR [--scratch=runs/closed_loop]

GENERATOR is the export of `configs/muse_shapes.py:generator`; the two RAHF are those of
`closed_loop.py`, which comes first. Parts of damaged scenes, of which it is known where
the damage is, are drawn anew. The part is

  rahf    where RAHF's heatmap of implausibility is at least --threshold, widened
  random  the same, moved to a random place: equally large, and of the same form
  true    where the damage is, widened
  whole   the whole image

Of the first 1, 4 or 8 candidates and the image itself one is chosen: the most plausible
to RAHF (rahf), or the least damaged to the template judge (oracle); by chance it is the
first candidate. What RAHF chose is judged by the template judge (share of undamaged
images) and by the second RAHF, what the oracle chose by the second RAHF alone.

To choose a threshold, the overlap of the masks with the damage comes first, on other
scenes.

Predicted: true >= rahf > random, whatever chooses; a choice is better than chance, and
better among more candidates.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence

os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import closed_loop_arms as arms
import closed_loop_common as common
import machine
import numpy as np
from absl import app, flags
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

import rahf
from rahf.data.datasets.shapes.render import render
from rahf.data.datasets.shapes.scene import Damage
from rahf.drawing.markdown import markdown_table
from rahf.inference.feedback import Feedback
from rahf.inference.image_generator import InpaintRequest, Request
from rahf.learning.repair import RepairOptions, flaw_mask

_IMAGES = flags.DEFINE_integer('images', 200, 'Damaged scenes.', lower_bound=4)
SIDE = 64
CANDIDATES = (1, 4, 8)
MEASURES = ('undamaged', 'second.plausibility', 'words')
OPTIONS = RepairOptions()
_THRESHOLD = flags.DEFINE_float(
  'threshold', OPTIONS.threshold, 'Of the heatmap.', lower_bound=0, upper_bound=1
)

# By measure, of each image and its candidates: the image itself comes first.
Judged = Mapping[str, Float[np.ndarray, 'P 1+C']]


def main(argv: list[str]) -> None:
  """Draws what is missing, and prints the tables."""
  generator = pathlib.Path(argv[1]).absolute()
  print(f'{machine.processor()}; {machine.accelerator()}', flush=True)
  print(overlaps(*damaged_scenes(common.THRESHOLD_SEED)))
  images, prompts, damages = damaged_scenes(common.REPAIR_SEED)
  masks = make_masks(images, prompts, damages)
  folder = common.scratch() / f'inpainting-{_THRESHOLD.value:.3f}'
  found = {}
  for name, mask in masks.items():

    def draw(to: pathlib.Path, name=name, mask=mask) -> None:
      drawn = candidates(generator, images, prompts, mask)
      np.savez(to / f'{name}.npz', **judged(images, drawn, prompts))

    with np.load(common.done(folder / name, draw) / f'{name}.npz') as file:
      found[name] = dict(file)
  report(found, {name: mask.mean() for name, mask in masks.items()})


def damaged_scenes(
  seed: int,
) -> tuple[UInt8[np.ndarray, 'P H W 3'], list[str], list[tuple[Damage, ...]]]:
  """Returns images of damaged scenes, their prompts, and where the damage is."""
  scenes = common.scenes(seed, 4 * _IMAGES.value)
  scenes = [one for one in scenes if one.scene.damages and one.scene.groups[0].drawn]
  scenes = scenes[: _IMAGES.value]
  images = np.array([render(one.scene, SIDE, one.texture) for one in scenes])
  prompts = [one.prompt.text for one in scenes]
  return images, prompts, [one.scene.damages for one in scenes]


def overlaps(
  images: UInt8[np.ndarray, 'P H W 3'],
  prompts: list[str],
  damages: list[tuple[Damage, ...]],
) -> str:
  """Returns a table of how well RAHF's masks agree with the damage, by threshold."""
  feedback = common.opened(common.scorers()['rahf']).score(images, prompts)
  true = np.array(
    [flaw_mask(where_damaged(one), 0.5, OPTIONS.widen) for one in damages]
  )
  rows = []
  for threshold in (1 / 3, 0.2, 0.1, 0.05, 0.03):
    mask = masks_at(threshold, feedback)
    overlap = (mask & true).sum((1, 2)) / (mask | true).sum((1, 2))
    rows.append([f'{threshold:.2f}', f'{mask.mean():.1%}', f'{overlap.mean():.2f}'])
  return markdown_table(('threshold', 'area', 'intersection over union'), rows)


def masks_at(
  threshold: float, feedback: Sequence[Feedback]
) -> Bool[np.ndarray, 'P H W']:
  """Returns the widened masks of RAHF's heatmaps."""
  maps = [one.heatmaps[OPTIONS.heatmap] for one in feedback]
  return np.array([flaw_mask(one, threshold, OPTIONS.widen) for one in maps])


def make_masks(
  images: UInt8[np.ndarray, 'P H W 3'],
  prompts: list[str],
  damages: list[tuple[Damage, ...]],
) -> dict[str, Bool[np.ndarray, 'P H W']]:
  """Returns the masks of each kind."""
  feedback = common.opened(common.scorers()['rahf']).score(images, prompts)
  by_rahf = masks_at(_THRESHOLD.value, feedback)
  random = np.random.default_rng(0)
  moved = [np.roll(one, random.integers(SIDE, size=2), (0, 1)) for one in by_rahf]
  true = [flaw_mask(where_damaged(one), 0.5, OPTIONS.widen) for one in damages]
  whole = np.ones_like(by_rahf)
  return {
    'rahf': by_rahf,
    'random': np.array(moved),
    'true': np.array(true),
    'whole': whole,
  }


def where_damaged(damages: tuple[Damage, ...]) -> Float[np.ndarray, 'H W']:
  """Returns 1 within the discs of damages, else 0."""
  y, x = (np.indices((SIDE, SIDE)) + 0.5) / SIDE
  inside = [(x - one.x) ** 2 + (y - one.y) ** 2 <= one.radius**2 for one in damages]
  return np.any(inside, 0).astype(float)


def candidates(
  generator: pathlib.Path,
  images: UInt8[np.ndarray, 'P H W 3'],
  prompts: list[str],
  masks: Bool[np.ndarray, 'P H W'],
) -> UInt8[np.ndarray, 'P C H W 3']:
  """Returns candidates; those of an empty mask are the image itself."""
  muse = rahf.load(generator, rows=common.BATCH)
  number = max(CANDIDATES)
  drawn = np.repeat(images[:, None], number, 1)
  partly = np.flatnonzero(masks.any((1, 2)) & ~masks.all((1, 2)))
  if len(partly):
    requests = [
      InpaintRequest(prompts[i], 0, c, images[i], masks[i])
      for i in partly
      for c in range(number)
    ]
    found = [*tqdm(muse.inpaint(requests), 'Inpainting', len(requests))]
    drawn[partly] = np.reshape(found, (len(partly), *drawn.shape[1:]))
  wholly = np.flatnonzero(masks.all((1, 2)))
  if len(wholly):
    requests = [Request(prompts[i], 0, c) for i in wholly for c in range(number)]
    found = [*tqdm(muse.draw(requests), 'Drawing', len(requests))]
    drawn[wholly] = np.reshape(found, (len(wholly), *drawn.shape[1:]))
  return drawn


def judged(
  images: UInt8[np.ndarray, 'P H W 3'],
  drawn: UInt8[np.ndarray, 'P C H W 3'],
  prompts: list[str],
) -> Judged:
  """Returns what all judges say of images and candidates."""
  both = np.concatenate([images[:, None], drawn], 1)
  repeated = [prompt for prompt in prompts for _ in range(both.shape[1])]
  flat = both.reshape(-1, *both.shape[2:])
  found = common.judge_all(flat, repeated, common.scorers())
  return {name: values.reshape(both.shape[:2]) for name, values in found.items()}


def chosen(values: Judged, by: str, number: int) -> Judged:
  """Returns the measures of the best of each image and its first candidates."""
  best = values[by][:, : number + 1].argmax(1)
  return {name: each[np.arange(len(best)), best] for name, each in values.items()}


def report(found: Mapping[str, Judged], areas: Mapping[str, float]) -> None:
  """Prints what came out for each mask and choice, and whether it was predicted."""
  results = {('none', '', 0): {name: v[:, 0] for name, v in found['rahf'].items()}}
  for mask, values in found.items():
    results[mask, 'chance', 1] = {name: v[:, 1] for name, v in values.items()}
    for number in CANDIDATES:
      results[mask, 'rahf', number] = chosen(values, 'rahf.plausibility', number)
      results[mask, 'oracle', number] = chosen(values, 'intact', number)
  rows = []
  for (mask, choice, number), values in results.items():
    area = f'{areas[mask]:.0%}' if mask in areas else ''
    cells = [
      '–' if choice == 'oracle' and name == 'undamaged' else arms.shown(values[name])
      for name in MEASURES
    ]
    rows.append([mask, area, choice, str(number or ''), *cells])
  header = ('drawn anew', 'area', 'chosen by', 'candidates', *MEASURES)
  print(markdown_table(header, rows))
  print('\nPredictions:\n')
  most = max(CANDIDATES)
  pairs = [
    (('true', 'rahf', most), ('rahf', 'rahf', most)),
    (('rahf', 'rahf', most), ('random', 'rahf', most)),
    (('rahf', 'chance', 1), ('random', 'chance', 1)),
    (('rahf', 'rahf', most), ('rahf', 'chance', 1)),
    (('rahf', 'rahf', most), ('rahf', 'rahf', 1)),
    (('rahf', 'rahf', most), ('none', '', 0)),
  ]
  rows = []
  for better, worse in pairs:
    title = f'{" ".join(map(str, better))} > {" ".join(map(str, worse)).strip(" 0")}'
    differences = [
      arms.shown(results[better][name] - results[worse][name], sign='+')
      for name in MEASURES[:2]
    ]
    rows.append([title, *differences])
  print(markdown_table(('', *MEASURES[:2]), rows))


if __name__ == '__main__':
  app.run(main)
