"""What the service counts, in the format that Prometheus reads."""

from collections.abc import Callable, Sequence

from prometheus_client import (
  CollectorRegistry,
  Counter,
  Gauge,
  Histogram,
  ProcessCollector,
  generate_latest,
)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
  """The metrics of one service, in a registry of their own.

  Attributes:
    requests: by status, all that asked for a score.
    seconds: from a request to its answer, of those answered with a score.
    batch_size: images of a batch, padding not counted.
    compute_seconds: of a batch.
    in_work: requests that are read, waiting, computed or written.
    ready: 1 while requests are taken.
  """

  def __init__(self, sizes: Sequence[int], waiting: Callable[[], int]):
    """Makes them.

    Args:
      sizes: of batches, ascending.
      waiting: gives the number of images in no batch yet.
    """
    self._registry = own = CollectorRegistry()
    ProcessCollector(registry=own)
    self.requests = Counter(
      'rahf_requests', 'Requests for a score', ['status'], registry=own
    )
    self.seconds = Histogram(
      'rahf_request_seconds', 'Request to score', buckets=SECONDS, registry=own
    )
    self.batch_size = Histogram(
      'rahf_batch_size', 'Images of a batch', buckets=sizes, registry=own
    )
    self.compute_seconds = Histogram(
      'rahf_compute_seconds', 'Time of a batch', buckets=SECONDS, registry=own
    )
    self.in_work = Gauge('rahf_requests_in_work', 'Requests not answered', registry=own)
    self.ready = Gauge('rahf_ready', '1 while requests are taken', registry=own)
    queued = Gauge('rahf_images_waiting', 'Images in no batch yet', registry=own)
    queued.set_function(waiting)

  def exposition(self) -> bytes:
    """Returns all of them as text."""
    return generate_latest(self._registry)
