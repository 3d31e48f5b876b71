"""The service's metrics in Prometheus format."""

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


class ServiceMetrics:
  """The metrics of one service, in their own registry.

  Attributes:
    requests: requests for a score, by status.
    seconds: from request to answer, for successful requests.
    batch_size: images in a batch, without padding.
    compute_seconds: compute time of a batch.
    in_work: requests being read, waiting, computed or answered.
    ready: 1 while requests are accepted.
  """

  def __init__(self, sizes: Sequence[int], waiting: Callable[[], int]):
    """Creates the metrics.

    Args:
      sizes: batch sizes, ascending.
      waiting: returns the number of images not yet in a batch.
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
      'rahf_batch_size', 'Images in a batch', buckets=sizes, registry=own
    )
    self.compute_seconds = Histogram(
      'rahf_compute_seconds',
      'Computing time of a batch',
      buckets=SECONDS,
      registry=own,
    )
    self.in_work = Gauge(
      'rahf_requests_in_work', 'Requests not answered yet', registry=own
    )
    self.ready = Gauge('rahf_ready', '1 while requests are accepted', registry=own)
    queued = Gauge('rahf_images_waiting', 'Images not in a batch yet', registry=own)
    queued.set_function(waiting)

  def exposition(self) -> bytes:
    """Returns all metrics as text."""
    return generate_latest(self._registry)
