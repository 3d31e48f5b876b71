"""Odd values for settings, as from typos, faulty scripts or malice."""

import math
from typing import Any

TEXTS = ('', ' ', 'x', '-1', '../..', '\x1b[31m\x07', '<img src=x onerror=a()>', '🐈')
WHOLE = (-(10**30), -2, -1, 0, 1, 2, 3, 7, 63, 2**14, 2**17, 2**31 - 1, 2**31, 10**30)
REAL = (math.nan, math.inf, -math.inf, -1.0, -0.0, 5e-324, 0.5, 1.0, 2.0, 1e6, 1e308)
PARTS = (None, True, 0, -1, 8, math.nan, 1.5, 10**30, 'x', '(', '^vit/', 'gelu', (), {})
OF_TYPE = {
  bool: (True, False),
  int: WHOLE,
  float: REAL,
  str: (*TEXTS, 'a\0b', 'a' * 5_000),
  tuple: (
    (),
    *((part,) for part in PARTS),
    *(((part, 2.0),) for part in PARTS),
    *((('^vit/', part),) for part in PARTS),
    *((part,) * 9 for part in (1, 'gelu', 'relu', '^vit/')),
  ),
}
# As typed in flags; most have the wrong type for any setting.
TYPED = (
  *(*TEXTS, 'nan', 'inf', '1e999', '0x10', '1_0', '[', '((', 'None', '()', "('x',)"),
  *('a.b', '{}', '9' * 5_000, '=', '--', '"', "'", '٣', '１', '\udcff'),
)


def values_of(default: Any) -> tuple[Any, ...]:
  """Returns odd values for a setting: of its type, of other types, and None."""
  return (default, *OF_TYPE[type(default)], None, True, 3, 0.5, 'x', (), {}, object())
