"""The service's page in headless Chromium."""

import base64
import json
import pathlib

import numpy as np
import pytest
from pages import find, pixel, press, texts
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

import clip_directory
import rahf
from rahf.data.images import codec
from rahf.drawing import heatmap as colours
from rahf.service.admission import Limits
from rahf.service.engine import Engine
from served import PROMPT, make_image, running, write_model

HOSTILE = '<img src=x onerror="document.title = 1"> {{data}} & </script> \u2028, red'


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return rahf.load(write_model(tmp_path_factory.mktemp('served')), batch_size=1)


@pytest.fixture(scope='module')
def address(model):
  engine = Engine(model)
  engine.warm_up(lambda line: None)
  with running(engine, Limits(body=200_000)) as port:
    yield f'http://127.0.0.1:{port}/'
  assert engine.stop(30)


@pytest.fixture
def opened(chromium, address):
  chromium.get_log('browser')
  chromium.get_log('performance')
  chromium.get(address)
  return chromium


def drop(browser, data: bytes) -> None:
  """Drops a file on the page."""
  browser.execute_script(
    """
    const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], 'dropped.png', {type: 'image/png'}));
    const options = {dataTransfer, bubbles: true, cancelable: true};
    document.getElementById('drop').dispatchEvent(new DragEvent('drop', options));
    """,
    base64.b64encode(data).decode(),
  )


def wait_for(browser, name: str = 'implausibility') -> None:
  """Waits until the map is drawn."""
  heat = find(browser, '#heat')
  WebDriverWait(browser, 20).until(
    lambda _: heat.is_displayed() and heat.get_attribute('data-drawn') == name
  )


def wait_for_message(browser, text: str) -> None:
  WebDriverWait(browser, 20).until(lambda b: text in find(b, '#message').text)


def score(browser, image: bytes, prompt: str = PROMPT) -> None:
  drop(browser, image)
  find(browser, '#text').send_keys(prompt)
  find(browser, '#ask button').click()
  wait_for(browser)


def test_page_shows_the_model_s_scores_words_and_maps(opened, model):
  image = make_image(3)
  (expected,) = model.score(image, PROMPT)
  score(opened, image)
  values = texts(opened, '.score span.value')
  assert values == [f'{value:.2f}' for value in expected.scores.values()]
  names = texts(opened, '.score > span:first-child')
  assert names == list(expected.scores)
  assert find(opened, '#result .keys').text == '0 to 1, higher is better'
  share = opened.execute_script(
    'const bar = document.querySelector(".track");'
    'return bar.firstChild.getBoundingClientRect().width / bar.clientWidth'
  )
  assert share == pytest.approx(expected.scores['plausibility'], abs=0.01)
  words = opened.find_elements('css selector', '#prompt .word')
  for word, (text, p) in zip(words, expected.keywords, strict=True):
    assert word.get_attribute('textContent') == f'{text} p {p:.2f}'
    assert ('misaligned' in word.get_attribute('class')) == (p > expected.threshold)
  for name in ('implausibility', 'misalignment'):
    find(opened, f'#controls [value={name}]').click()
    wait_for(opened, name)
    heatmap = expected.heatmaps[name]
    for row, column in ((2, 3), (20, 30)):
      colour, alpha = colours.heat(heatmap[row, column])
      found = pixel(opened, column / 40, row / 24)
      # A canvas stores premultiplied colours, with few levels where opacity is low.
      np.testing.assert_allclose(found[:3], colour, atol=6)
      assert found[3] == pytest.approx(255 * alpha, abs=4)
    assert find(opened, '#peak').text == f'max {heatmap.max():.2f}'
  assert opened.get_log('browser') == []


def test_the_slider_fades_the_map(opened):
  score(opened, make_image())
  slider, heat = find(opened, '[name=opacity]'), find(opened, '#heat')
  assert float(heat.value_of_css_property('opacity')) == 0.8
  slider.send_keys(Keys.HOME)
  assert float(heat.value_of_css_property('opacity')) == 0
  slider.send_keys(Keys.END)
  assert float(heat.value_of_css_property('opacity')) == 1
  box, under = heat.rect, find(opened, '#picture').rect
  assert box == under
  assert box['width'] / box['height'] == pytest.approx(40 / 24, rel=0.02)


def test_keyboard_only(opened, tmp_path):
  path = pathlib.Path(tmp_path) / 'chosen.png'
  path.write_bytes(make_image())
  press(opened, Keys.TAB)
  assert opened.switch_to.active_element.text == 'API reference'
  press(opened, Keys.TAB)
  # Pressing Enter there would open a system dialog.
  chooser = opened.switch_to.active_element
  assert chooser.accessible_name == 'image file'
  outline = find(opened, '#drop').value_of_css_property('outline-style')
  assert outline == 'solid'
  chooser.send_keys(str(path))
  # The driver would treat keys sent to the file chooser as paths.
  ActionChains(opened).send_keys(Keys.TAB).perform()
  press(opened, 'red m 1', Keys.ENTER)
  wait_for(opened)
  # Letters typed in the prompt do not trigger the map's keys.
  assert find(opened, '[name=opacity]').get_property('value') == '80'
  press(opened, Keys.TAB, Keys.TAB)
  word = opened.switch_to.active_element
  assert word.get_attribute('class').startswith('word')
  shown = opened.execute_script(
    'return getComputedStyle(arguments[0], "::after").content', word
  )
  assert shown == f'"{word.get_attribute("data-p")}"'
  press(opened, 'm')
  wait_for(opened, 'misalignment')
  press(opened, '0')
  assert float(find(opened, '#heat').value_of_css_property('opacity')) == 0


def test_a_prompt_is_shown_as_text(opened):
  score(opened, make_image(), HOSTILE)
  shown = opened.execute_script(
    'const p = document.getElementById("prompt").cloneNode(true);'
    'p.querySelectorAll(".unseen").forEach((e) => e.remove());'
    'return p.textContent'
  )
  assert shown == HOSTILE
  assert not opened.find_elements('css selector', '#prompt img')
  assert opened.title == 'RAHF: score an image'
  assert 'steps on <b>;' in find(opened, 'header p').text
  assert opened.get_log('browser') == []


def test_nothing_external_is_fetched(opened, address):
  score(opened, make_image())
  opened.execute_script(
    'document.body.append(Object.assign(document.createElement("script"),'
    '{textContent: "document.title = 1"}))'
  )
  assert opened.title == 'RAHF: score an image'
  (complaint,) = (entry['message'] for entry in opened.get_log('browser'))
  assert 'Content Security Policy' in complaint
  events = [json.loads(e['message'])['message'] for e in opened.get_log('performance')]
  urls = [
    event['params']['request']['url']
    for event in events
    if event['method'] == 'Network.requestWillBeSent'
  ]
  assert f'{address}score' in urls
  others = {url for url in urls if not url.startswith(('data:', 'blob:'))}
  assert others == {address, f'{address}score'}


def test_mistakes_are_explained(opened):
  button = find(opened, '#ask button')
  button.click()
  wait_for_message(opened, 'Choose an image first')
  drop(opened, make_image())
  button.click()
  wait_for_message(opened, 'Type the prompt')
  find(opened, '#text').send_keys('red')
  drop(opened, codec.encode_png(np.zeros((1, 8193, 3), np.uint8)))
  button.click()
  wait_for_message(opened, 'image: 8193x1 pixels are more than the limit')
  drop(opened, make_image(0, 400, 400))
  button.click()
  wait_for_message(opened, 'larger than the limit')
  drop(opened, b'GIF89a')
  wait_for_message(opened, 'it may not be an image')
  assert not find(opened, '#result').is_displayed()


def test_an_answer_that_is_not_json(opened, model, monkeypatch):
  monkeypatch.setattr(model, 'score_examples', lambda examples: 1 / 0)
  drop(opened, make_image())
  find(opened, '#text').send_keys('red')
  find(opened, '#ask button').click()
  wait_for_message(opened, 'The service failed (status 500).')


def test_a_truncated_prompt(opened):
  score(opened, make_image(), 'red ' * 40)
  wait_for_message(opened, 'its last words were not judged')
  last = opened.find_elements('css selector', '#prompt .word')[-1]
  assert last.get_attribute('data-p') == 'not judged'


def test_another_image_clears_the_answer(opened):
  score(opened, make_image())
  drop(opened, make_image(1, 60, 30))
  assert not find(opened, '#result').is_displayed()
  assert not find(opened, '#heat').is_displayed()
  find(opened, '#ask button').click()
  wait_for(opened)
  size = opened.execute_script('const h = byId("heat"); return [h.width, h.height]')
  assert size == [30, 60]


@pytest.mark.parametrize('path', ['', 'docs'])
def test_narrow_screens_and_long_words(opened, address, path):
  metrics = {'width': 360, 'height': 700, 'deviceScaleFactor': 1, 'mobile': False}
  opened.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
  try:
    opened.get(address + path)
    if not path:
      score(opened, make_image(), 'x' * 900)
    width = opened.execute_script('return document.documentElement.scrollWidth')
    assert width <= 360
  finally:
    opened.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


@pytest.mark.parametrize(('scheme', 'dark'), [('light', False), ('dark', True)])
def test_light_and_dark(opened, scheme, dark):
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
  colour = find(opened, 'body').value_of_css_property('background-color')
  assert (int(colour.split('(')[1].split(',')[0]) < 60) is dark


def test_a_clip_s_page_shows_its_score_alone(chromium, tmp_path):
  model = rahf.load(clip_directory.write(tmp_path / 'clip'), batch_size=1)
  engine, image = Engine(model), make_image(3)
  engine.warm_up(lambda line: None)
  (expected,) = model.score(image, PROMPT)
  with running(engine) as port:
    chromium.get_log('browser')
    chromium.get(f'http://127.0.0.1:{port}/')
    drop(chromium, image)
    find(chromium, '#text').send_keys(PROMPT)
    find(chromium, '#ask button').click()
    WebDriverWait(chromium, 20).until(lambda b: find(b, '#result').is_displayed())
    value = expected.scores['similarity']
    assert texts(chromium, '.score > span:first-child') == ['similarity']
    assert texts(chromium, '.score span.value') == [f'{value:.2f}'.replace('-', '−')]
    keys = find(chromium, '#result .keys').text
    assert keys == '-14.2857 to 14.2857, higher is better'
    share = chromium.execute_script(
      'const bar = document.querySelector(".track");'
      'return bar.firstChild.getBoundingClientRect().width / bar.clientWidth'
    )
    # The bar goes from the lowest possible value to the highest.
    assert share == pytest.approx(0.5 + 0.5 * value * 0.07, abs=0.01)
    for hidden in ('#words', '#maps', '#heat'):
      assert not find(chromium, hidden).is_displayed()
    press(chromium, 'm')
    assert chromium.get_log('browser') == []
  assert engine.stop(30)
