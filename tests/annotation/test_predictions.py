"""Predictions: what people see of a model, and what they are asked next."""

import browsing
import numpy as np
import projects
import pytest
import sqlalchemy as sa

import clip_directory
import rahf
import tiny_directory
from rahf import annotate
from rahf.annotation import answering, predictions, project, transfer
from rahf.annotation.tables import ANSWERS, ITEMS
from rahf.data import schema
from rahf.errors import InputError
from rahf.inference.feedback import Feedback

SCORES = dict.fromkeys(schema.SCORES, 0.5)


def make_feedback(prompt: str, p: list[float], **maps) -> Feedback:
  words = [(str(number), value) for number, value in enumerate(p)]
  empty = dict.fromkeys(schema.MAPS, np.zeros((4, 4), np.float32))
  return Feedback(prompt, (60, 80), SCORES, False, None, words, 0.4, empty | maps)


def test_peaks_are_apart_and_the_highest_come_first():
  heat = np.zeros((100, 50), np.float32)
  heat[20, 10], heat[22, 12], heat[80, 40], heat[5, 5] = 0.9, 0.8, 1.0, 0.2
  found = predictions.peaks(heat)
  assert found == [[0.81, 0.805], [0.21, 0.205]]
  assert predictions.peaks(np.zeros((4, 4), np.float32)) == []
  assert len(predictions.peaks(np.ones((400, 400), np.float32))) == 20


def test_words_become_label_tokens():
  # The label token 'a\nred' holds two words; the last word was cut.
  feedback = make_feedback('a\nred cat, asleep', [0.1, 0.5, 0.2, np.nan])
  found = predictions.from_feedback(feedback)
  assert found['misaligned_words'] == [0]
  assert found['scores'] == dict.fromkeys(schema.SCORES, 3.0)
  assert found['uncertainty'] == pytest.approx((1 + 0.64) / 2)
  draft = predictions.as_draft(found)
  assert answering.rich.check_draft(draft, 'a\nred cat, asleep') == draft
  assert draft['nothing'] == []


def predicted(tmp_path, count: int, **settings):
  made = projects.make(tmp_path, count)
  made, _ = project.update(made, settings, None)
  with made.store.write() as connection:
    for number in range(1, count + 1):
      one = {
        'implausibility_points': [[0.5, 0.5]],
        'misalignment_points': [],
        'misaligned_words': [1],
        'scores': dict.fromkeys(schema.SCORES, 1.4),
        'uncertainty': number / 10,
      }
      where = sa.update(ITEMS).where(ITEMS.c.id == number)
      connection.execute(where.values(prediction=one))
      row = connection.execute(sa.select(ITEMS).where(ITEMS.c.id == number)).one()
      predictions.rank(connection, row)
  return made


def answers(made) -> list:
  with made.store.read() as connection:
    return connection.execute(sa.select(ANSWERS).order_by(ANSWERS.c.id)).all()


def test_people_start_from_a_prediction(tmp_path):
  made = predicted(tmp_path, 2, assist='start')
  person = projects.enter(made, 'ann')
  task = answering.next_task(made, person)
  assert task['draft']['misaligned_words'] == [1]
  assert task['draft']['scores']['overall'] == 1
  # The draft alone is not an answer: somebody has to say that there is nothing else.
  with pytest.raises(InputError, match='misalignment_points: mark something'):
    answering.submit(made, person, task['lease'], projects.answer(task['draft']))
  value = task['draft'] | {'nothing': ['misalignment_points']}
  answering.submit(made, person, task['lease'], projects.answer(value))
  assert [one.assist for one in answers(made)] == ['start']
  lines = [line for line in transfer.lines(made) if line['kind'] == 'answer']
  assert lines[0]['assist'] == 'start'


def test_people_see_a_prediction_after_their_own_answer(tmp_path):
  made = predicted(tmp_path, 2, assist='after')
  with browsing.running(made) as port:
    page = browsing.Page(port, name='ann')
    task = page.json('/api/task')['task']
    assert task['draft'] is None
    body = {'lease': task['lease'], **projects.answer()._asdict()}
    status, found = page.send('/api/answer', body)
    assert status == 200
    assert found['prediction']['item'] == task['item']
    assert found['prediction']['misaligned_words'] == [1]
    # Whoever skips may still come back, and must not have seen it.
    skipped = body | {'lease': found['task']['lease'], 'key': 's' * 16}
    skipped |= {'status': 'skipped', 'value': None}
    assert page.send('/api/answer', skipped)[1]['prediction'] is None
  assert [one.assist for one in answers(made)] == ['after', 'after']


def test_what_people_and_model_disagree_about_comes_next(tmp_path):
  made = predicted(tmp_path, 4, order='disagreement')
  ann, ben = projects.enter(made, 'ann'), projects.enter(made, 'ben')
  order = []
  # The model says 1.4; people agree about all but item 2.
  while task := answering.next_task(made, ann):
    order.append(task['item'])
    score = 5 if task['item'] == 2 else 1
    value = projects.rich_value(scores=dict.fromkeys(schema.SCORES, score))
    answering.submit(made, ann, task['lease'], projects.answer(value))
  assert order == [4, 3, 2, 1]
  assert answering.next_task(made, ben)['item'] == 2
  with made.store.read() as connection:
    found = connection.scalars(sa.select(ITEMS.c.priority).order_by(ITEMS.c.id)).all()
  assert found == pytest.approx([0.1, 0.9, 0.1, 0.1])


def test_a_model_predicts(tmp_path, capsys):
  made = projects.make(tmp_path, 3)
  made.store.close()
  model = tiny_directory.write(tmp_path)
  command = ['predict', str(tmp_path / 'project'), str(model), '--batch_size=1']
  assert annotate.main(command) == 0
  assert 'Predicted: 3 images' in capsys.readouterr().out
  with project.opened(tmp_path / 'project') as made, made.store.read() as connection:
    rows = connection.execute(sa.select(ITEMS)).all()
  (expected,) = rahf.load(model, batch_size=1).score(
    made.images / '02.png', projects.PROMPT
  )
  stored = rows[2].prediction
  for name, score in expected.scores.items():
    assert stored['scores'][name] == pytest.approx(1 + 4 * score, abs=1e-4)
  assert len(rows[2].prediction['misaligned_words']) <= 4
  assert rows[2].priority == pytest.approx(stored['uncertainty'] / 2)
  clip = clip_directory.write(tmp_path / 'clip')
  assert annotate.main(['predict', str(tmp_path / 'project'), str(clip)]) == 2
  assert 'the model makes no maps and words' in capsys.readouterr().err
