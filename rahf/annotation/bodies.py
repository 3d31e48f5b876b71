"""What pages send."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rahf.annotation.answering import Answer
from rahf.annotation.tables import DONE
from rahf.fileio.validators import INT32_MAX

# What a database takes for a number.
Number = Annotated[int, Field(ge=0, le=INT32_MAX)]


class _Body(BaseModel):
  model_config = ConfigDict(extra='forbid')


class Enter(_Body):
  """A name, or an invitation's token."""

  name: str = Field('', max_length=200)
  token: str = Field('', max_length=200)


class Draft(_Body):
  """An unfinished answer."""

  lease: Number
  value: Any


class Prompt(_Body):
  """An annotator's own prompt."""

  prompt: str = Field(max_length=4000)


class Active(_Body):
  """Whether an annotator may answer."""

  annotator: Number
  active: bool


class Submitted(_Body):
  """An answer; `lease` is of the task, or the number of an answer to change."""

  lease: Number
  turn: Number = 0
  key: str
  value: Any = None
  status: str = DONE
  flag: str = ''
  seconds: float = Field(0.0, ge=0, allow_inf_nan=False)

  def answer(self) -> Answer:
    """Returns what is stored."""
    return Answer(**self.model_dump(exclude={'lease'}))
