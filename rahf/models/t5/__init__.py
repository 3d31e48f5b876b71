"""T5 (Raffel et al., 2020), v1.0 and v1.1, in T5X's parameter tree."""

from rahf.models.t5.config import T5Config
from rahf.models.t5.decoder import DecoderCache
from rahf.models.t5.layers import MAX_DISTANCE, RELATIVE_BUCKETS, KeyValue
from rahf.models.t5.model import T5

__all__ = [
  'MAX_DISTANCE',
  'RELATIVE_BUCKETS',
  'T5',
  'DecoderCache',
  'KeyValue',
  'T5Config',
]
