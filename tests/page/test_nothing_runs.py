"""Nothing in prompts, uids or names can run on a page."""

import json

import pytest
from etils import epath
from hostile import HTML
from pages import find, make_prediction, make_record
from selenium.webdriver.support.ui import WebDriverWait

import rahf
from rahf.data import label_words
from rahf.evaluation.samples import intervals, metrics
from rahf.evaluation.score_example import score
from rahf.inference import model_directory
from rahf.reports import html_report
from rahf.reports.gallery import Gallery
from rahf.service.engine import Engine
from served import ask_form, make_image, running, write_model

# Tested one by one; HTML combines several attacks.
TEXTS = (
  HTML,
  '<img src=x onerror=window.hacked=1>',
  '"><svg/onload=window.hacked=1>',
  "';window.hacked=1//",
  '{{constructor.constructor("window.hacked=1")()}}',
  '${window.hacked=1}',
  '<!--<script>window.hacked=1</script>',
  ']]><script>window.hacked=1</script>',
  '<a href="javascript:window.hacked=1">a</a>',
  '\u2028window.hacked=1\u2029',
  '\ud800'.encode('utf-8', 'replace').decode() + '<iframe srcdoc="<script>">',
  '&lt;script&gt;window.hacked=1&lt;/script&gt;',
)


def check_quiet(browser) -> None:
  assert browser.execute_script('return window.hacked') is None
  assert not browser.find_elements('css selector', 'iframe, svg[onload], img[onerror]')
  assert not browser.find_elements('css selector', 'a[href^=javascript]')
  assert len(browser.find_elements('css selector', 'script:not([type])')) <= 1
  assert browser.get_log('browser') == []


def test_report(chromium, tmp_path):
  gallery, scored = Gallery(thumbnails=len(TEXTS)), []
  for number, text in enumerate(TEXTS):
    tokens = tuple(label_words.label_tokens(text))
    record = make_record(0)._replace(
      uid=f'{text}{number}',
      prompt=text,
      tokens=tokens,
      keyword_labels=(0,) * len(tokens),
    )
    prediction = make_prediction(0, len(tokens))
    scored.append(score(record, prediction))
    gallery.add(record, prediction, scored[-1])
  path = epath.Path(tmp_path) / 'test-1.html'
  values = metrics(scored) | {'keywords/truncated': 0}
  html_report.write(
    path, scored, gallery.thumbnails, values, intervals(scored), title=HTML
  )
  chromium.get_log('browser')
  chromium.get(f'file://{path}')
  rows = chromium.find_elements('css selector', '#samples tbody button')
  assert len(rows) == len(TEXTS)
  for number, text in enumerate(TEXTS):
    rows = chromium.find_elements('css selector', '#samples tbody button')
    assert rows[number].get_attribute('textContent') == f'{text}{text}{number}'
    chromium.execute_script('arguments[0].click()', rows[number])
    check_quiet(chromium)
  assert 'window.hacked = 1' in chromium.title


@pytest.fixture
def address(tmp_path):
  """The address of a service whose model has a hostile description."""
  folder = write_model(tmp_path)
  path = folder / model_directory.DESCRIPTION
  settings = json.loads(path.read_text())
  settings['data'] = {text: {'weight': 1, 'terms': text} for text in TEXTS}
  settings |= {'weights': HTML, 'rahf': HTML}
  del settings['sha256']  # Checksum of the description.
  path.write_text(json.dumps(settings))
  engine = Engine(rahf.load(folder, batch_size=1))
  engine.warm_up(lambda line: None)
  with running(engine) as port:
    yield f'http://127.0.0.1:{port}/'
  assert engine.stop(30)


def test_service(chromium, address, tmp_path):
  chromium.get_log('browser')
  for page in ('', 'docs'):
    chromium.get(address + page)
    check_quiet(chromium)
  chromium.get(address)
  assert TEXTS[1] in find(chromium, 'body').text
  image = tmp_path / '<img src=x onerror=window.hacked=1>.png'
  image.write_bytes(make_image())
  for text in TEXTS:
    chromium.get(address)
    find(chromium, 'input[type=file]').send_keys(str(image))
    chromium.execute_script(
      'document.querySelector("#text").value = arguments[0]', text
    )
    find(chromium, '#ask button').click()
    heat = find(chromium, '#heat')
    WebDriverWait(chromium, 20).until(lambda _, heat=heat: heat.is_displayed())
    check_quiet(chromium)


def test_names_of_uploads_are_ignored(address, tmp_path):
  port = int(address.rstrip('/').rpartition(':')[2])
  before = set(tmp_path.parent.rglob('*'))
  for name in ('../../x.png', '/tmp/x.png', 'a\\..\\x', HTML.replace('"', '')):
    answer = ask_form(port, make_image(), filename=name, prompt=TEXTS[1])
    assert answer.status == 200
    assert answer.json['prompt'] == TEXTS[1]
    assert answer.headers['Content-Type'] == 'application/json'
  assert set(tmp_path.parent.rglob('*')) == before
