"""Times --mode=infer: decoding, the network, and the whole command.

  python benchmarks/inference.py DIR [--images=4096] [--size=512] [--batch=32]

Writes smooth random images as square PNG files of `--size` pixels, with prompts, and
scores them: from memory, and with `python -m rahf.main --mode=infer` (including startup
and compilation), without maps and with each kind of maps.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import machine
import numpy as np
from PIL import Image

import rahf
from rahf.data.images import codec

PROMPT = 'a red circle to the left of a large blue square, and {} green triangles'
COARSE = 16


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('model', help='a model directory')
  parser.add_argument('--images', type=int, default=4096, help='number of images')
  parser.add_argument('--size', type=int, default=512, help='width in pixels')
  parser.add_argument('--batch', type=int, default=32, help='images per batch')
  options = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix='rahf-inference-') as scratch:
    folder = pathlib.Path(scratch)
    write(folder / 'images', options.images, options.size)
    from_memory(options.model, folder / 'images', options.batch)
    for maps in ('none', 'png', 'npz'):
      time_command(options.model, folder, maps, options.batch, options.images)


def write(folder: pathlib.Path, count: int, size: int) -> None:
  """Writes the images and their prompts."""
  folder.mkdir()
  for number in range(count):
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (COARSE, COARSE, 3), np.uint8))
    pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    (folder / f'{number:06d}.png').write_bytes(codec.encode_png(pixels))
    (folder / f'{number:06d}.txt').write_text(PROMPT.format(number))


def from_memory(directory: str, folder: pathlib.Path, batch: int) -> None:
  """Prints how fast one thread prepares images, and how fast the devices score them."""
  model = rahf.load(directory, batch_size=batch)
  print(f'{machine.processor()}; {machine.accelerator()}')
  paths = sorted(folder.glob('*.png'))[: 16 * batch]
  start = time.perf_counter()
  examples = [model.prepare(path, PROMPT.format(path.stem)) for path in paths]
  show('read, decoded and tokenised, one thread', start, len(paths))
  model.score_examples(examples[:batch])  # Compiles.
  start = time.perf_counter()
  model.score_examples(examples[: len(examples) // batch * batch])
  show('scored', start, len(examples) // batch * batch)


def time_command(
  directory: str, folder: pathlib.Path, maps: str, batch: int, count: int
) -> None:
  """Prints the images per second of the command."""
  command = [sys.executable, '-m', 'rahf.main', '--mode=infer', f'--model={directory}']
  command += [f'--input={folder / "images"}', f'--output={folder / maps}']
  command += [f'--maps={maps}', f'--batch_size={batch}']
  start = time.perf_counter()
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
  show(f'--mode=infer --maps={maps}, in total', start, count)


def show(name: str, start: float, count: int) -> None:
  seconds = time.perf_counter() - start
  print(f'{name:42}{count / seconds:10.1f} images/s', flush=True)


if __name__ == '__main__':
  main()
