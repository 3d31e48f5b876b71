"""What goes over the wire: the fields of requests and answers, for the reference."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rahf import legend

LONGEST_PROMPT = 10_000  # characters; models read a few hundred tokens

Unit = Annotated[float, Field(ge=0, le=1)]
Prompt = Annotated[
  str,
  Field(max_length=LONGEST_PROMPT, description='the text that the image was made from'),
]
Maps = Annotated[bool, Field(description='whether the answer holds the heatmaps')]


class _Message(BaseModel):
  model_config = ConfigDict(extra='forbid')


class ScoreRequest(_Message):
  """One image and its prompt, as JSON."""

  image: str = Field(description='a PNG, JPEG or WEBP file in base64')
  prompt: Prompt
  maps: Maps = True


class ScoreForm(_Message):
  """One image and its prompt, as a form."""

  image: bytes = Field(
    description='a PNG, JPEG or WEBP file', json_schema_extra={'format': 'binary'}
  )
  prompt: Prompt
  maps: Maps = True


class Scores(_Message):
  """Four scores of the image."""

  plausibility: Unit = Field(
    description=f'{legend.SCORES["plausibility"]}; {legend.SCORE}'
  )
  alignment: Unit = Field(description=f'{legend.SCORES["alignment"]}; {legend.SCORE}')
  aesthetics: Unit = Field(description=f'{legend.SCORES["aesthetics"]}; {legend.SCORE}')
  overall: Unit = Field(description=f'{legend.SCORES["overall"]}; {legend.SCORE}')


class Keyword(_Message):
  """A word of the prompt."""

  word: str
  p_misaligned: Unit | None = Field(
    description=f'{legend.KEYWORDS}; {legend.KEYWORD}; null behind the cut of a prompt '
    'that is too long'
  )
  misaligned: bool = Field(description="whether it is above the model's threshold")


class Heatmaps(_Message):
  """Two maps at the image's own size, grey PNG files in base64 in which 255 is 1."""

  implausibility: str = Field(
    description=f'{legend.MAPS["implausibility"]}; {legend.MAP}'
  )
  misalignment: str = Field(description=f'{legend.MAPS["misalignment"]}; {legend.MAP}')


class ScoreReply(_Message):
  """What the model says of an image."""

  prompt: str = Field(description='as it was sent')
  height: int = Field(description='of the image, pixels')
  width: int = Field(description='of the image, pixels')
  scores: Scores
  keywords: list[Keyword] = Field(
    description='the words of the prompt, in order; they end at white space and at '
    ', . ? ! " : ;'
  )
  truncated: bool = Field(description='whether the end of the prompt was not read')
  heatmaps: Heatmaps | None = Field(None, description='left out where maps is false')


class Health(_Message):
  """Whether the service answers."""

  status: str = Field(description='ready, compiling or stopping')
  version: str = Field(description='of rahf')
  step: int = Field(description='of training, at which the model was exported')
  batch_sizes: list[int] = Field(description='that are compiled at the start')
  compiled: int = Field(description='how many of them are')


class Problem(_Message):
  """Why a request was not answered."""

  detail: str
