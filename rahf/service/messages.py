"""Schemas of requests and answers, with descriptions for the reference."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rahf.inference import output_ranges

LONGEST_PROMPT = 10_000  # characters; models read a few hundred tokens

Unit = Annotated[float, Field(ge=0, le=1)]
Prompt = Annotated[
  str,
  Field(max_length=LONGEST_PROMPT, description='the text the image was made from'),
]
Maps = Annotated[
  bool, Field(description='whether to include the heatmaps in the answer')
]


class _Message(BaseModel):
  model_config = ConfigDict(extra='forbid')


class ScoreRequest(_Message):
  """One image and its prompt, as JSON."""

  image: str = Field(description='a PNG, JPEG or WEBP file in base64, or as a data URL')
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
  """The four scores of the image."""

  plausibility: Unit = Field(
    description=f'{output_ranges.SCORES["plausibility"]}; {output_ranges.SCORE}'
  )
  alignment: Unit = Field(
    description=f'{output_ranges.SCORES["alignment"]}; {output_ranges.SCORE}'
  )
  aesthetics: Unit = Field(
    description=f'{output_ranges.SCORES["aesthetics"]}; {output_ranges.SCORE}'
  )
  overall: Unit = Field(
    description=f'{output_ranges.SCORES["overall"]}; {output_ranges.SCORE}'
  )


class Keyword(_Message):
  """A word of the prompt."""

  word: str
  p_misaligned: Unit | None = Field(
    description=f'{output_ranges.KEYWORDS}; {output_ranges.KEYWORD}; null for words '
    'that were not judged because the prompt is too long'
  )
  misaligned: bool = Field(
    description="whether p_misaligned is above the model's threshold"
  )


class Heatmaps(_Message):
  """Two maps of the image's size: grey PNG files in base64, where 255 means 1."""

  implausibility: str = Field(
    description=f'{output_ranges.MAPS["implausibility"]}; {output_ranges.MAP}'
  )
  misalignment: str = Field(
    description=f'{output_ranges.MAPS["misalignment"]}; {output_ranges.MAP}'
  )


class ScoreReply(_Message):
  """The scores, words and heatmaps of an image."""

  prompt: str = Field(description='the prompt as it was read')
  height: int = Field(description='height of the image in pixels')
  width: int = Field(description='width of the image in pixels')
  scores: Scores
  keywords: list[Keyword] = Field(
    description='the words of the prompt, in order, split at white space and '
    ', . ? ! " : ;'
  )
  truncated: bool = Field(
    description='whether the prompt was too long and its last words were not judged'
  )
  heatmaps: Heatmaps | None = Field(None, description='omitted if maps is false')


class Health(_Message):
  """The state of the service."""

  status: str = Field(description='ready, compiling or stopping')
  version: str = Field(description='version of rahf')
  step: int = Field(description='training step at which the model was exported')
  batch_sizes: list[int] = Field(
    description='batch sizes that are compiled at start-up'
  )
  compiled: int = Field(description='how many of them are compiled so far')


class Problem(_Message):
  """Why a request was not answered."""

  detail: str
