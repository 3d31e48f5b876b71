"""Ranges for the sizes of a network, with which the configs annotate their fields."""

from typing import Annotated

from rahf.fileio.validators import sequence, truth, whole

# Far more than any model has. A mistyped size is refused before it fills the memory.
Width = Annotated[int, whole(1, 2**17)]
Widths = Annotated[tuple, sequence(whole(1, 2**17), '(64, 32)')]
Layers = Annotated[int, whole(1, 200)]
Side = Annotated[int, whole(1, 8192)]
Flag = Annotated[bool, truth]
DTYPES = ('float32', 'bfloat16')  # of computations
