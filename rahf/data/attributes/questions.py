"""Questions about images, whose answers are attributes (paper section 3.3).

Data format of a file, JSON: question -> answer -> texts that describe an image with
that answer, as for `questions.json`, which has the paper's two questions:

  {"photorealistic": {"yes": ["a photo"], "no": ["a drawing", "a painting"]}}
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence

from rahf.errors import InputError
from rahf.fileio import strict_json
from rahf.fileio.table_files import IMAGES, PROMPTS, UIDS

Questions = Mapping[str, Mapping[str, Sequence[str]]]
DEFAULT = pathlib.Path(__file__).with_name('questions.json')
# At the end of the name of a question: the column of confidences.
CONFIDENCE = '_confidence'
# Names of questions are columns of tables and parts of file names.
_NAME = re.compile(r'[a-z][a-z0-9_]*')
# Columns that other tables of images have.
_OTHERS = {*IMAGES, *PROMPTS, *UIDS}


def read_questions(path: os.PathLike | str = DEFAULT) -> Questions:
  """Reads a file of questions.

  Raises:
    InputError: it cannot be read, or a question has fewer than two answers, or an
      answer no texts.
  """
  try:
    questions = strict_json.read(pathlib.Path(path))
  except ValueError as error:
    raise InputError(f'{path} cannot be read: {error}') from None
  if not isinstance(questions, dict) or not questions:
    raise InputError(f'{path} has no questions; {DEFAULT} shows how to write them')
  for name, answers in questions.items():
    if not can_be_question(name):
      raise InputError(
        f'{path}: the question {name!r:.80} must consist of small letters, digits and '
        f'_, and begin with a letter; it cannot end in {CONFIDENCE}, or be one of '
        f'{", ".join(sorted(_OTHERS))}'
      )
    if not isinstance(answers, dict) or len(answers) < 2:
      raise InputError(f'{path}: {name} needs two answers or more, with their texts')
    for answer, texts in answers.items():
      if not answer.strip() or not _are_texts(texts):
        raise InputError(
          f'{path}: {name}, answer {answer!r:.80}: give a list of texts that describe '
          'such images'
        )
  return questions


def can_be_question(name: str) -> bool:
  """Returns whether a name, of a column or a question, can be that of a question."""
  return (
    bool(_NAME.fullmatch(name))
    and name not in _OTHERS
    and not name.endswith(CONFIDENCE)
  )


def _are_texts(texts: object) -> bool:
  return (
    isinstance(texts, list)
    and bool(texts)
    and all(isinstance(text, str) and text.strip() for text in texts)
  )
