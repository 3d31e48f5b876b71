"""Tiny models, prompts and images for the commands of `rahf.improve`, as processes."""

import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image

import runs
import tiny_directory
import tiny_muse


def write_models(folder: pathlib.Path, count: int) -> None:
  """Writes a Muse, a RAHF, `count` prompts, and as many images with prompts."""
  tiny_muse.write(folder / 'muse')
  tiny_directory.write(folder)
  prompts = [f'a red circle and {number} crosses' for number in range(count)]
  (folder / 'prompts.txt').write_text('\n'.join(prompts))
  (folder / 'images').mkdir()
  random = np.random.default_rng(0)
  for number, prompt in enumerate(prompts):
    pixels = random.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'images/{number:05}.png')
    (folder / f'images/{number:05}.txt').write_text(prompt)


def start(models: pathlib.Path, verb: str, source: str, *options) -> subprocess.Popen:
  """Starts a command on the prompts or images in the folder of the models."""
  arguments = [verb, models / source, f'--generator={models}/muse']
  arguments += [f'--model={models}/model', *options]
  return subprocess.Popen(
    [sys.executable, '-m', 'rahf.improve', *map(str, arguments)],
    cwd=runs.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
