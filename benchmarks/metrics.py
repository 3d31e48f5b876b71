"""Times the heatmap metrics for one pair of 512x512 maps on the CPU.

  python benchmarks/metrics.py

Prints medians for each metric and for all of them together, and for AUC-Judd by
counting at every threshold, which sorting replaces.
"""

import statistics
import time
from collections.abc import Callable

import machine
import numpy as np
from scipy.ndimage import gaussian_filter

from rahf.metrics import saliency

SIDE = 512
TEST_PAIRS = 2 * 955  # two maps per image of RichHF-18K's test split


def example() -> tuple[np.ndarray, np.ndarray]:
  """Returns a smooth prediction and a truth of three discs of radius SIDE / 20."""
  y, x = np.mgrid[:SIDE, :SIDE]
  truth = np.zeros((SIDE, SIDE), np.float32)
  for centre_y, centre_x in ((150, 200), (160, 215), (400, 90)):
    disc = np.hypot(y - centre_y, x - centre_x) <= SIDE / 20
    truth += disc.astype(np.float32) / 3
  noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
  prediction = gaussian_filter(truth + noise, 8)
  # No two values are equal, as with a sigmoid: the slowest case for sorting.
  prediction = (prediction - prediction.min()) / np.ptp(prediction)
  return prediction.astype(np.float32), truth


def auc_judd_by_counting(prediction: np.ndarray, truth: np.ndarray) -> float:
  """Computes AUC-Judd in the usual way: one pass over the map per threshold."""
  thresholds = np.sort(prediction[truth > 0])[::-1]
  n, pixels = thresholds.size, prediction.size
  tp, fp = np.zeros(n + 2), np.zeros(n + 2)
  for i, threshold in enumerate(thresholds, start=1):
    tp[i] = i / n
    fp[i] = (np.count_nonzero(prediction >= threshold) - i) / (pixels - n)
  tp[-1] = fp[-1] = 1
  return float(np.trapezoid(tp, fp))


def median_ms(function: Callable[[], object], repetitions: int) -> float:
  times = []
  for _ in range(repetitions):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return 1000 * statistics.median(times)


def main() -> None:
  pair = example()
  functions = (
    saliency.mse,
    saliency.cc,
    saliency.kld,
    saliency.sim,
    saliency.nss,
    saliency.auc_judd,
  )
  print(machine.processor())
  print(f'one pair of {SIDE}x{SIDE} maps, {np.count_nonzero(pair[1]):,} fixated pixels')
  for function in functions:
    print(
      f'{function.__name__:<22}{median_ms(lambda f=function: f(*pair), 50):9.2f} ms'
    )
  everything = median_ms(lambda: saliency.MapMetrics.of(*pair), 50)
  print(f'{"all":<22}{everything:9.2f} ms')
  print(f'{f"all, {TEST_PAIRS:,} pairs":<22}{everything * TEST_PAIRS / 1000:9.2f} s')
  counting = median_ms(lambda: auc_judd_by_counting(*pair), 3)
  sorting = median_ms(lambda: saliency.auc_judd(*pair), 50)
  difference = abs(auc_judd_by_counting(*pair) - saliency.auc_judd(*pair))
  print(f'{"auc_judd by counting":<22}{counting:9.2f} ms')
  print(
    f'{"  times sorting":<22}{counting / sorting:9.0f}   (differs by {difference:.1e})'
  )


if __name__ == '__main__':
  main()
