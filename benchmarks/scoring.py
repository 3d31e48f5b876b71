"""Times scoring images in Python: import, load, first call, later calls.

  python benchmarks/scoring.py runs/quickstart/export [--size=64] [--calls=20]

The images are PNG files of noise, given as bytes; each bucket's first call compiles.
"""

import argparse
import statistics
import time


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('directory', help='model directory, from --mode=export')
  parser.add_argument('--size', type=int, default=64, help='image width in pixels')
  parser.add_argument('--calls', type=int, default=20, help='number of later calls')
  options = parser.parse_args()
  # Imported here, as this is timed, too.
  start = time.perf_counter()
  import rahf

  imported = time.perf_counter()
  rahf.load  # noqa: B018, lazily imports everything that needs JAX
  needed = time.perf_counter()
  model = rahf.load(options.directory)
  loaded = time.perf_counter()

  import machine
  import numpy as np

  from rahf.data.images.codec import encode_png

  print(f'{machine.processor()}; {machine.accelerator()}')
  _line('import rahf', imported - start, 's')
  _line('import of what scoring needs', needed - imported, 's')
  _line('load', loaded - needed, 's')
  shape = options.size, options.size, 3
  random = np.random.default_rng(0)
  for bucket in (model.buckets[0], model.buckets[-1]):
    files = [
      encode_png(random.integers(0, 256, shape, np.uint8)) for _ in range(bucket)
    ]
    seconds = []
    for _ in range(1 + options.calls):
      start = time.perf_counter()
      model.score(files, 'a red circle and two small blue squares')
      seconds.append(time.perf_counter() - start)
    first, later = seconds[0], statistics.median(seconds[1:])
    _line(f'{bucket} images: first call', first, 's')
    _line('  later calls', 1e3 * later, f'ms, {bucket / later:.0f} images/s')


def _line(name: str, value: float, unit: str) -> None:
  print(f'{name:32}{value:10.3f} {unit}', flush=True)


if __name__ == '__main__':
  main()
