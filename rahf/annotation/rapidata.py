"""Asks annotators questions through Rapidata's service and reads their answers.

It asks for scores, points where something is wrong, and words of the prompt that the
image misses, in the way in which Rapidata's own rich feedback sets were made. Answers
are anonymous, so each becomes a line of its own in the raw annotations
(`rahf.data.labels.raw`), weighted by the service's trust in the annotator.

Part of the results format is documented: `results` has for each image its
`originalFileName` and, for scores, `detailedResults` with `votedFor` and
`userDetails.userScores.global`. Not documented are points, assumed to be `coordinates`
of {x, y} in the same place, as fractions of the image, and words, assumed to be
`selectedWords` of {word, wordIndex}. Anything else is an error.
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
  # People find it easier to judge how much is wrong than how much is right.
  'plausibility': Scale(
    'How many visual errors, such as distorted or impossible parts, does the image '
    'have? 1: none, 5: very many',
    inverted=True,
  ),
  'alignment': Scale('How well does the image match the text? 1: not at all, 5: fully'),
  'aesthetics': Scale('How much do you like the look of the image? 1: not, 5: very'),
  'overall': Scale('How good is the image for the text? 1: very bad, 5: very good'),
}
# For each map: the score that must be low to ask for points, and the question.
POINTS = {
  'implausibility': ('plausibility', 'Tap on every visual error in the image'),
  'misalignment': ('alignment', 'Tap on everything that does not match the text'),
}
WORDS = (
  'Select the words of the text that the image does not show correctly, or '
  f'{NO_MISTAKE} if all is right'
)


class RapidataSession(NamedTuple):
  """A client, the images to annotate, and the folder for jobs and results.

  Attributes:
    client: a `rapidata.RapidataClient`.
    folder: holds `jobs.json` and the results.
    images: files by uid.
    prompts: by uid.
  """

  client: Any
  folder: pathlib.Path
  images: Mapping[str, pathlib.Path]
  prompts: Mapping[str, str]


def start(session: RapidataSession, *, responses: int, audience: str) -> dict[str, str]:
  """Starts the jobs for scores and words; returns their ids by name.

  `collect` starts those for points later, for images that scored low.

  Raises:
    InputError: all these jobs were already started in this folder.
  """
  path = session.folder / 'jobs.json'
  if path.exists() and _read_jobs(session)['asked']:
    raise InputError(
      f'{path} exists; run with --collect to collect its jobs, or choose another --out'
    )
  fresh = {'responses': responses, 'audience': audience, 'jobs': {}, 'asked': False}
  saved = _read_jobs(session) if path.exists() else fresh
  uids = list(session.images)
  files = [str(session.images[uid]) for uid in uids]
  for name, scale in SCALES.items():
    if name in saved['jobs']:
      continue
    definition = session.client.job.create_classification_job_definition(
      name=f'rahf {name}',
      instruction=scale.instruction,
      answer_options=list(LEVELS),
      datapoints=files,
      contexts=[session.prompts[uid] for uid in uids],
      responses_per_datapoint=saved['responses'],
    )
    _assign(session, saved, name, definition)
  if 'words' not in saved['jobs']:
    definition = session.client.job.create_select_words_job_definition(
      name='rahf words',
      instruction=WORDS,
      datapoints=files,
      sentences=[sentence(session.prompts[uid]) for uid in uids],
      responses_per_datapoint=saved['responses'],
    )
    _assign(session, saved, 'words', definition)
  _write_jobs(session, saved | {'asked': True})
  return saved['jobs']


def collect(session: RapidataSession, *, low: float) -> pathlib.Path | None:
  """Waits for the jobs and writes the answers as raw annotations.

  The first call writes nothing if it starts jobs for points, on images whose score is
  at most `low`, in [0, 1].

  Returns:
    The path of `annotations.jsonl`, or None if jobs for points were just started.

  Raises:
    InputError: not all jobs were started, or a result has an unexpected format.
  """
  saved = _read_jobs(session)
  if not saved['asked']:
    raise InputError('not all jobs were started; run the command without --collect')
  jobs = saved['jobs']
  found: list[tuple[str, Annotation]] = []
  for name in SCALES:
    found += _answers(session, jobs[name], _score_reader(name))
  if 'points' not in saved:
    asked = _ask_for_points(session, saved, dict(_by_uid(found)), low)
    _write_jobs(session, saved | {'points': asked})
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
  """Returns the text that annotators select words from: the prompt and NO_MISTAKE."""
  spans = label_words.spaced_spans(prompt)
  return ' '.join([*(prompt[start:end] for start, end in spans), NO_MISTAKE])


def _assign(session: RapidataSession, saved: dict, name: str, definition: Any) -> None:
  """Starts a job and saves its id at once, since it costs money."""
  audience = session.client.audience.get_audience_by_id(saved['audience'])
  saved['jobs'][name] = audience.assign_job(definition).id
  _write_jobs(session, saved)


def _ask_for_points(
  session: RapidataSession,
  saved: dict,
  scored: Mapping[str, list[Annotation]],
  low: float,
) -> list[str]:
  """Starts jobs for points on images that scored low; returns their names."""
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
    if name in saved['jobs']:
      continue
    definition = session.client.job.create_locate_job_definition(
      name=f'rahf {name}',
      instruction=instruction,
      datapoints=[str(session.images[uid]) for uid in uids],
      contexts=[session.prompts[uid] for uid in uids],
      responses_per_datapoint=saved['responses'],
    )
    _assign(session, saved, name, definition)
  return asked


def _answers(
  session: RapidataSession, job: str, read: Callable[[str, dict], Annotation]
) -> Iterator[tuple[str, Annotation]]:
  """Yields the uid and annotation of each answer by a trusted annotator.

  Raises:
    InputError: an answer has an unexpected format.
  """
  by_file = {path.name: uid for uid, path in session.images.items()}
  results = session.client.job.get_job_by_id(job).get_results()
  # Kept as received, since part of their format is not documented.
  (session.folder / f'results-{job}.json').write_text(json.dumps(results, indent=2))
  for result in results['results']:
    try:
      uid = by_file[result['originalFileName']]
      for answer in result['detailedResults']:
        trust = float(answer['userDetails']['userScores']['global'])
        if trust > 0:
          yield uid, read(uid, answer)._replace(trust=trust)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
      raise InputError(
        f'job {job}: unexpected format of a result ({error!r}): {str(result)[:300]}; '
        f'results are saved in {session.folder}; adapt rahf/annotation/rapidata.py'
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
    # A label token may contain several words, joined by white space other than spaces.
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


def _write_jobs(session: RapidataSession, values: dict) -> None:
  session.folder.mkdir(parents=True, exist_ok=True)
  atomic_write.write(session.folder / 'jobs.json', json.dumps(values, indent=2) + '\n')


def _read_jobs(session: RapidataSession) -> dict:
  path = session.folder / 'jobs.json'
  if not path.exists():
    raise InputError(f'{path} does not exist; start jobs first, without --collect')
  return strict_json.read_own(
    path, 'it records which jobs were paid for: add their ids again'
  )
