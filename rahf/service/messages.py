"""Schemas of requests and answers, with descriptions for the reference."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from rahf.inference import output_ranges
from rahf.inference.output_ranges import ModelOutputs

LONGEST_PROMPT = 10_000  # characters; models read a few hundred tokens

Unit = Annotated[float, Field(ge=0, le=1)]
Prompt = Annotated[
  str,
  Field(max_length=LONGEST_PROMPT, description='the text the image was made from'),
]
Maps = Annotated[
  bool, Field(description='whether to include heatmaps, if the model makes them')
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


class Keyword(_Message):
  """A word of the prompt."""

  word: str
  p_misaligned: Unit | None = Field(
    description=f'{output_ranges.RAHF_OUTPUTS.keywords}; null for words that were not '
    'judged because the prompt is too long'
  )
  misaligned: bool = Field(
    description="whether p_misaligned is above the model's threshold"
  )


def score_reply(outputs: ModelOutputs) -> type[BaseModel]:
  """Returns the schema of an answer, with a field for each of a model's outputs."""
  fields: dict[str, Any] = {
    'prompt': (str, Field(description='the prompt as it was read')),
    'height': (int, Field(description='height of the image in pixels')),
    'width': (int, Field(description='width of the image in pixels')),
    'scores': (_scores(outputs), ...),
  }
  if outputs.keywords:
    words = 'the words of the prompt, in order, split at white space and , . ? ! " : ;'
    fields['keywords'] = (list[Keyword], Field(description=words))
  cut = 'whether the prompt was too long and its last words were not read'
  fields['truncated'] = (bool, Field(description=cut))
  if outputs.maps:
    maps = Field(None, description='omitted if maps is false')
    fields['heatmaps'] = (_heatmaps(outputs) | None, maps)
  text = 'What the model says about an image.'
  return create_model('ScoreReply', __base__=_Message, __doc__=text, **fields)


def _scores(outputs: ModelOutputs) -> type[BaseModel]:
  fields = {}
  for name, one in outputs.scores.items():
    low, high = one.scale.range
    fields[name] = (float, Field(ge=low, le=high, description=str(one)))
  text = 'The scores of the image.'
  return create_model('Scores', __base__=_Message, __doc__=text, **fields)


def _heatmaps(outputs: ModelOutputs) -> type[BaseModel]:
  fields = {
    name: (str, Field(description=str(one))) for name, one in outputs.maps.items()
  }
  text = "Maps of the image's size: grey PNG files in base64, where 255 means 1."
  return create_model('Heatmaps', __base__=_Message, __doc__=text, **fields)


class Health(_Message):
  """The state of the service."""

  status: str = Field(description='ready, compiling or stopping')
  version: str = Field(description='version of rahf')
  step: int | None = Field(
    None,
    description='training step at which the model was exported; omitted for models of '
    'other projects',
  )
  batch_sizes: list[int] = Field(
    description='batch sizes that are compiled at start-up'
  )
  compiled: int = Field(description='how many of them are compiled so far')


class Problem(_Message):
  """Why a request was not answered."""

  detail: str
