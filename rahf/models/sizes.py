"""What the sizes of a network may be; a dataclass annotates its fields with these."""

from typing import Annotated

from rahf.fileio.validators import sequence, truth, whole

# No model has more; what is made of a wrong number would fill every memory.
Width = Annotated[int, whole(1, 2**17)]
Widths = Annotated[tuple, sequence(whole(1, 2**17), '(64, 32)')]
Layers = Annotated[int, whole(1, 200)]
Side = Annotated[int, whole(1, 8192)]
Flag = Annotated[bool, truth]
