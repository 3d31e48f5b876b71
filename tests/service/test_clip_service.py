"""The service of a CLIP answers with its similarity, and says nothing else."""

import pytest

import clip_directory
import rahf
from rahf.service import messages
from rahf.service.engine import Engine
from served import PROMPT, ask, ask_form, ask_json, make_image, running


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  folder = clip_directory.write(tmp_path_factory.mktemp('weights') / 'clip')
  return rahf.load(folder, batch_size=2)


@pytest.fixture(scope='module')
def port(model):
  engine = Engine(model)
  engine.warm_up(lambda line: None)
  with running(engine) as port:
    yield port
  assert engine.stop(30)


def test_answers(port, model):
  image = make_image(3)
  (expected,) = model.score(image, PROMPT)
  for answer in (
    ask_json(port, image),
    ask_json(port, image, maps=False),
    ask_form(port, image, prompt=PROMPT),
  ):
    assert answer.status == 200
    found = answer.json
    assert found.keys() == {'prompt', 'height', 'width', 'scores', 'truncated'}
    assert found['scores'] == pytest.approx(expected.scores, abs=1e-5)
    messages.score_reply(model.outputs).model_validate_json(answer.body)
  assert ask_json(port, image, 'ring ' * 300).json['truncated']


def test_range_and_direction_are_in_the_reference(port):
  schemas = ask(port, 'GET', '/openapi.json').json['components']['schemas']
  assert not {'Heatmaps', 'Keyword'} & schemas.keys()
  (field,) = schemas['Scores']['properties'].values()
  assert field['minimum'] == -field['maximum'] == pytest.approx(-1 / 0.07, rel=1e-5)
  assert field['description'].endswith('; -14.2857 to 14.2857, higher is better')
  page = ask(port, 'GET', '/docs').body.decode()
  assert '-14.2857 to 14.2857, higher is better' in page
  assert 'plausibility' not in page


def test_health_and_page(port):
  health = ask(port, 'GET', '/health').json
  assert 'step' not in health
  assert health['status'] == 'ready'
  page = ask(port, 'GET', '/').body.decode()
  assert f'Hugging Face CLIP, 32 px; rahf {rahf.__version__}' in page
  assert 'value="implausibility"' not in page
