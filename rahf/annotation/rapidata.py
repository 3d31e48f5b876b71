"""Annotation by Rapidata's service: asks the questions and reads the answers.

Annotators give scores, points where something is wrong, and the words of the prompt
that the image misses, as in Rapidata's rich feedback data sets. Answers are anonymous:
each becomes a separate line of the raw annotations (`rahf.data.labels.raw`), with the
trust that the service has in its annotator.

The service documents these parts of its results: `results`, with the
`originalFileName` of each image and, for scores, `detailedResults` with `votedFor` and
`userDetails.userScores.global`. It does not document that `detailedResults` has points
as `coordinates` of {x, y} and words as `selectedWords` of {word, wordIndex}, nor
whether coordinates are fractions or percent. Any other form is an error.
"""

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rahf.data import label_words, schema
from rahf.data.labels import raw
from rahf.data.labels.consolidate import Annotation, mean_scores
from rahf.errors import InputError
from rahf.fileio import atomic_write, strict_json

NO_MISTAKE = '[No_Mistake]'
LEVELS = ('1', '2', '3', '4', '5')


class Scale(NamedTuple):
  """A question with five answers; `inverted` if 5 is the worst."""

  instruction: str
  inverted: bool = False


SCALES = {
  # Errors are easier to judge than their absence.
  'plausibility': Scale(
    'How many visual errors, such as distorted or impossible parts, does the image '
    'have? 1: none, 5: very many',
    inverted=True,
  ),
  'alignment': Scale('How well does the image match the text? 1: not at all, 5: fully'),
  'aesthetics': Scale('How much do you like the look of the image? 1: not, 5: very'),
  'overall': Scale('How good is the image for the text? 1: very bad, 5: very good'),
}
# Points are asked for images where this score is low.
POINTS = {
  'implausibility': ('plausibility', 'Tap on every visual error in the image'),
  'misalignment': ('alignment', 'Tap on everything that does not match the text'),
}
WORDS = (
  'Select the words of the text that the image does not show correctly, or '
  f'{NO_MISTAKE} if all is right'
)


class RapidataSession(NamedTuple):
  """A client, and the images and prompts to annotate.

  Attributes:
    client: a `rapidata.RapidataClient`.
    folder: folder of `jobs.json` and the results.
    images: image files by uid.
    prompts: prompts by uid.
  """

  client: Any
  folder: pathlib.Path
  images: Mapping[str, pathlib.Path]
  prompts: Mapping[str, str]


def start(session: RapidataSession, *, responses: int, audience: str) -> dict[str, str]:
  """Asks for scores and words for all images; returns the jobs' ids by name.

  `collect` asks for points later, since only images with low scores need them.

  Raises:
    InputError: jobs were started in this folder before.
  """
  path = session.folder / 'jobs.json'
  if path.exists() and _read_state(session)['asked']:
    raise InputError(f'{path} exists; collect its jobs, or choose another --out')
  fresh = {'responses': responses, 'audience': audience, 'jobs': {}, 'asked': False}
  state = _read_state(session) if path.exists() else fresh
  uids = list(session.images)
  files = [str(session.images[uid]) for uid in uids]
  for name, scale in SCALES.items():
    if name in state['jobs']:
      continue
    definition = session.client.job.create_classification_job_definition(
      name=f'rahf {name}',
      instruction=scale.instruction,
      answer_options=list(LEVELS),
      datapoints=files,
      contexts=[session.prompts[uid] for uid in uids],
      responses_per_datapoint=state['responses'],
    )
    _assign(session, state, name, definition)
  if 'words' not in state['jobs']:
    definition = session.client.job.create_select_words_job_definition(
      name='rahf words',
      instruction=WORDS,
      datapoints=files,
      sentences=[sentence(session.prompts[uid]) for uid in uids],
      responses_per_datapoint=state['responses'],
    )
    _assign(session, state, 'words', definition)
  _write_state(session, state | {'asked': True})
  return state['jobs']


def collect(session: RapidataSession, *, low: float) -> pathlib.Path | None:
  """Waits for the jobs and writes the answers as raw annotations.

  The first call asks for points on images whose score, in [0, 1], is at most `low`; it
  writes nothing unless there are none.

  Returns:
    The path of `annotations.jsonl`, or None if this call asked for points.

  Raises:
    InputError: not all jobs were started, or a result is not as expected.
  """
  state = _read_state(session)
  if not state['asked']:
    raise InputError('not all jobs were started; run the command without --collect')
  jobs = state['jobs']
  found: list[tuple[str, Annotation]] = []
  for name in SCALES:
    found += _answers(session, jobs[name], _score_reader(name))
  if 'points' not in state:
    asked = _ask_for_points(session, state, dict(_by_uid(found)), low)
    _write_state(session, state | {'points': asked})
    if asked:
      return None
  found += _answers(
    session, jobs['words'], lambda uid, a: _words(session.prompts[uid], a)
  )
  for name in POINTS:
    if name in jobs:
      found += _answers(session, jobs[name], _point_reader(name))
  path = session.folder / 'annotations.jsonl'
  raw.write(path, _by_uid(found))
  return path


def sentence(prompt: str) -> str:
  """Returns the prompt's words, and one more to select if nothing is wrong."""
  spans = label_words.spaced_spans(prompt)
  return ' '.join([*(prompt[start:end] for start, end in spans), NO_MISTAKE])


def _assign(session: RapidataSession, state: dict, name: str, definition: Any) -> None:
  """Starts a job and saves its id at once, since it costs money."""
  audience = session.client.audience.get_audience_by_id(state['audience'])
  state['jobs'][name] = audience.assign_job(definition).id
  _write_state(session, state)


def _ask_for_points(
  session: RapidataSession,
  state: dict,
  scored: Mapping[str, list[Annotation]],
  low: float,
) -> list[str]:
  """Asks for points; returns the jobs' names, none if no image scored low."""
  asked = []
  for name, (score, instruction) in POINTS.items():
    column = schema.SCORES.index(score)
    uids = [
      uid
      for uid, annotations in scored.items()
      if mean_scores(annotations)[0][column] <= low
    ]
    if not uids:
      continue
    asked.append(name)
    if name in state['jobs']:
      continue
    definition = session.client.job.create_locate_job_definition(
      name=f'rahf {name}',
      instruction=instruction,
      datapoints=[str(session.images[uid]) for uid in uids],
      contexts=[session.prompts[uid] for uid in uids],
      responses_per_datapoint=state['responses'],
    )
    _assign(session, state, name, definition)
  return asked


def _answers(
  session: RapidataSession, job: str, read: Callable[[str, dict], Annotation]
) -> Iterator[tuple[str, Annotation]]:
  """Yields the uid and annotation of each answer from a trusted annotator.

  Raises:
    InputError: an answer is not as expected.
  """
  by_file = {path.name: uid for uid, path in session.images.items()}
  results = session.client.job.get_job_by_id(job).get_results()
  # Saved unchanged, since not all of their format is documented.
  (session.folder / f'results-{job}.json').write_text(json.dumps(results, indent=2))
  for result in results['results']:
    try:
      uid = by_file[result['originalFileName']]
      for answer in result['detailedResults']:
        trust = float(answer['userDetails']['userScores']['global'])
        # Answers without trust are left out.
        if trust > 0:
          yield uid, read(uid, answer)._replace(trust=trust)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
      raise InputError(
        f'job {job}: a result is not as expected ({error!r}): {str(result)[:300]}; '
        f'all results are in {session.folder}; adapt rahf/annotation/rapidata.py'
      ) from None


def _score_reader(name: str) -> Callable[[str, dict], Annotation]:
  column = schema.SCORES.index(name)

  def read(uid: str, answer: dict) -> Annotation:
    del uid
    if answer['votedFor'] not in LEVELS:
      raise ValueError(f'{answer["votedFor"]!r} is not one of {", ".join(LEVELS)}')
    level = LEVELS.index(answer['votedFor']) + 1
    scores: list[float | None] = [None] * len(schema.SCORES)
    scores[column] = 6 - level if SCALES[name].inverted else level
    return Annotation(None, None, None, scores)

  return read


def _point_reader(name: str) -> Callable[[str, dict], Annotation]:
  def read(uid: str, answer: dict) -> Annotation:
    del uid
    points = [(float(p['x']), float(p['y'])) for p in answer['coordinates']]
    if not all(0 <= c <= 1 for point in points for c in point):
      raise ValueError(f'coordinates {points} are not fractions of the image')
    nothing = Annotation(None, None, None)
    return nothing._replace(**{f'{name}_points': points})

  return read


def _words(prompt: str, answer: dict) -> Annotation:
  """Converts selected words of the sentence to label tokens of the prompt."""
  spans = label_words.spaced_spans(prompt)
  marked = set()
  for selected in answer['selectedWords']:
    index = int(selected['wordIndex'])
    if index == len(spans):
      continue  # No mistake.
    if not 0 <= index < len(spans):
      raise ValueError(f'{prompt!r} has no word {index}')
    start, end = spans[index]
    if selected['word'] != prompt[start:end]:
      raise ValueError(f'word {index} of {prompt!r} is not {selected["word"]!r}')
    # A label token may contain white space other than spaces, and so several words.
    for number, (first, last) in enumerate(label_words.label_spans(prompt)):
      if first < end and start < last:
        marked.add(number)
  return Annotation(None, None, sorted(marked))


def _by_uid(
  answers: Iterable[tuple[str, Annotation]],
) -> Sequence[tuple[str, list[Annotation]]]:
  found: dict[str, list[Annotation]] = {}
  for uid, annotation in answers:
    found.setdefault(uid, []).append(annotation)
  return list(found.items())


def _write_state(session: RapidataSession, values: dict) -> None:
  session.folder.mkdir(parents=True, exist_ok=True)
  atomic_write.write(session.folder / 'jobs.json', json.dumps(values, indent=2) + '\n')


def _read_state(session: RapidataSession) -> dict:
  path = session.folder / 'jobs.json'
  if not path.exists():
    raise InputError(f'{path} does not exist; start jobs first, without --collect')
  return strict_json.read_own(
    path, 'it lists the jobs that were paid for: write their ids there again'
  )
