"""Annotation by Rapidata's service: the questions asked, and the answers read.

Scores, points where something is wrong, and the words of the prompt that the image
misses are asked the way Rapidata's own rich feedback sets were made. Answers are
anonymous, so each is a line of its own in the raw annotations (`rahf.data.labels.raw`),
trusted as much as the service trusts who gave it.

What of the service's results is documented: `results`, for each image its
`originalFileName` and, for scores, `detailedResults` with `votedFor` and
`userDetails.userScores.global`. That points are `coordinates` of {x, y} and words
`selectedWords` of {word, wordIndex} in the same place is not; nor whether coordinates
are fractions or percent. What looks different is an error, never guessed.
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
  """A question with five answers; `inverted` where 5 is the worst."""

  instruction: str
  inverted: bool = False


SCALES = {
  # How much is wrong is easier to say than how much is right.
  'plausibility': Scale(
    'How many visual errors, such as distorted or impossible parts, does the image '
    'have? 1: none, 5: very many',
    inverted=True,
  ),
  'alignment': Scale('How well does the image match the text? 1: not at all, 5: fully'),
  'aesthetics': Scale('How much do you like the look of the image? 1: not, 5: very'),
  'overall': Scale('How good is the image for the text? 1: very bad, 5: very good'),
}
# Points are asked where this score is low.
POINTS = {
  'implausibility': ('plausibility', 'Tap on every visual error in the image'),
  'misalignment': ('alignment', 'Tap on everything that does not match the text'),
}
WORDS = (
  'Select the words of the text that the image does not show correctly, or '
  f'{NO_MISTAKE} if all is right'
)


class Desk(NamedTuple):
  """What one run of the command works with.

  Attributes:
    client: of `rapidata.RapidataClient`.
    folder: where `jobs.json` and the results are kept.
    images: files by uid.
    prompts: by uid.
  """

  client: Any
  folder: pathlib.Path
  images: Mapping[str, pathlib.Path]
  prompts: Mapping[str, str]


def start(desk: Desk, *, responses: int, audience: str) -> dict[str, str]:
  """Asks for scores and words of all images; returns the jobs' ids by name.

  Points come later, by `collect`, since they are asked for images that scored low.

  Raises:
    InputError: jobs were started in this folder before.
  """
  path = desk.folder / 'jobs.json'
  if path.exists() and _kept(desk)['asked']:
    raise InputError(f'{path} exists; collect its jobs, or take another --out')
  fresh = {'responses': responses, 'audience': audience, 'jobs': {}, 'asked': False}
  kept = _kept(desk) if path.exists() else fresh
  uids = list(desk.images)
  files = [str(desk.images[uid]) for uid in uids]
  for name, scale in SCALES.items():
    if name in kept['jobs']:
      continue
    definition = desk.client.job.create_classification_job_definition(
      name=f'rahf {name}',
      instruction=scale.instruction,
      answer_options=list(LEVELS),
      datapoints=files,
      contexts=[desk.prompts[uid] for uid in uids],
      responses_per_datapoint=kept['responses'],
    )
    _assign(desk, kept, name, definition)
  if 'words' not in kept['jobs']:
    definition = desk.client.job.create_select_words_job_definition(
      name='rahf words',
      instruction=WORDS,
      datapoints=files,
      sentences=[sentence(desk.prompts[uid]) for uid in uids],
      responses_per_datapoint=kept['responses'],
    )
    _assign(desk, kept, 'words', definition)
  _keep(desk, kept | {'asked': True})
  return kept['jobs']


def collect(desk: Desk, *, low: float) -> pathlib.Path | None:
  """Waits for the jobs and writes the answers as raw annotations.

  The first time it also asks for points on images whose score is at most `low`, on
  [0, 1]; then there is nothing to write yet.

  Returns:
    `annotations.jsonl`, or None if points were only asked for now.

  Raises:
    InputError: no job was started, or a result is not as expected.
  """
  kept = _kept(desk)
  if not kept['asked']:
    raise InputError('not all jobs were started; run the command without --collect')
  jobs = kept['jobs']
  found: list[tuple[str, Annotation]] = []
  for name in SCALES:
    found += _answers(desk, jobs[name], _score_reader(name))
  if 'points' not in kept:
    asked = _ask_for_points(desk, kept, dict(_by_uid(found)), low)
    _keep(desk, kept | {'points': asked})
    if asked:
      return None
  found += _answers(desk, jobs['words'], lambda uid, a: _words(desk.prompts[uid], a))
  for name in POINTS:
    if name in jobs:
      found += _answers(desk, jobs[name], _point_reader(name))
  path = desk.folder / 'annotations.jsonl'
  raw.write(path, _by_uid(found))
  return path


def sentence(prompt: str) -> str:
  """Returns what words are selected from: the prompt and a word for no mistake."""
  spans = label_words.spaced_spans(prompt)
  return ' '.join([*(prompt[start:end] for start, end in spans), NO_MISTAKE])


def _assign(desk: Desk, kept: dict, name: str, definition: Any) -> None:
  """Starts a job and notes it at once, since it costs money."""
  audience = desk.client.audience.get_audience_by_id(kept['audience'])
  kept['jobs'][name] = audience.assign_job(definition).id
  _keep(desk, kept)


def _ask_for_points(
  desk: Desk, kept: dict, scored: Mapping[str, list[Annotation]], low: float
) -> list[str]:
  """Returns the names of the jobs, none where no image scored low."""
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
    if name in kept['jobs']:
      continue
    definition = desk.client.job.create_locate_job_definition(
      name=f'rahf {name}',
      instruction=instruction,
      datapoints=[str(desk.images[uid]) for uid in uids],
      contexts=[desk.prompts[uid] for uid in uids],
      responses_per_datapoint=kept['responses'],
    )
    _assign(desk, kept, name, definition)
  return asked


def _answers(
  desk: Desk, job: str, read: Callable[[str, dict], Annotation]
) -> Iterator[tuple[str, Annotation]]:
  """Yields uid and annotation of each answer of a job by a trusted annotator.

  Raises:
    InputError: an answer is not as expected.
  """
  by_file = {path.name: uid for uid, path in desk.images.items()}
  results = desk.client.job.get_job_by_id(job).get_results()
  # As they came, since not all of their shape is documented.
  (desk.folder / f'results-{job}.json').write_text(json.dumps(results, indent=2))
  for result in results['results']:
    try:
      uid = by_file[result['originalFileName']]
      for answer in result['detailedResults']:
        trust = float(answer['userDetails']['userScores']['global'])
        # Nobody's word counts for nothing or less.
        if trust > 0:
          yield uid, read(uid, answer)._replace(trust=trust)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
      raise InputError(
        f'job {job}: a result is not as expected ({error!r}): {str(result)[:300]}; '
        f'they are kept in {desk.folder}; adapt rahf/annotation/rapidata.py'
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
  """Translates the words of the sentence to the prompt's label tokens."""
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
    # A label token may hold white space other than the space, and several words.
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


def _keep(desk: Desk, values: dict) -> None:
  desk.folder.mkdir(parents=True, exist_ok=True)
  atomic_write.write(desk.folder / 'jobs.json', json.dumps(values, indent=2) + '\n')


def _kept(desk: Desk) -> dict:
  path = desk.folder / 'jobs.json'
  if not path.exists():
    raise InputError(f'{path} does not exist; start jobs first, without --collect')
  return strict_json.read_own(
    path, 'it says which jobs were paid for: write their ids there again'
  )
