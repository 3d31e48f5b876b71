"""The report page, in headless Chromium as people open it: from a file, offline."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
from etils import epath

from rahf import panels
from rahf.data import images, schema
from rahf.gallery import Gallery
from rahf.page import writer
from rahf.samples import Sample, intervals, metrics
from rahf.scorecard import Prediction, score

HOSTILE = (
  '</script><script>document.title = "run"</script>'
  '<img src=x onerror="document.title = 1"> {{data}} & "quotes" \u2028 \U0001f600 cats'
)
PROMPTS = ('a red cat', HOSTILE, 'two blue dogs')
HEAT = np.zeros((8, 8), np.float32)
HEAT[:4, 4:] = 1


def make_record(number: int) -> schema.Record:
  """The last is not annotated with maps; words are misaligned by their number."""
  prompt = PROMPTS[number]
  tokens = tuple(writer.words.label_tokens(prompt))
  data = b'' if number == 2 else images.encode_map(HEAT)
  return schema.Record(
    uid=f'uid-{number}',
    image=images.encode_png(np.full((40, 60, 3), 128, np.uint8)),
    prompt=prompt,
    tokens=tokens,
    keyword_labels=tuple(int(i >= number) for i in range(len(tokens))),
    scores=(0.25, 0.5, 0.5, math.nan),
    implausibility_map=data,
    misalignment_map=data,
  )


def make_prediction(number: int, words: int) -> Prediction:
  return Prediction(
    np.stack([HEAT[::-1] / (number + 1), HEAT]),
    np.array([0.25, 0.5, 0.5, 0.5]) + 0.1 * number,
    (1,) * words,
    0,
    np.linspace(0, 1, words),
  )


@pytest.fixture(scope='module')
def page(tmp_path_factory) -> epath.Path:
  gallery, samples = Gallery(thumbnails=3), []
  for number in range(3):
    record = make_record(number)
    prediction = make_prediction(number, len(record.tokens))
    samples.append(score(record, prediction))
    gallery.add(record, prediction, samples[-1])
  path = epath.Path(tmp_path_factory.mktemp('page')) / 'test-7.html'
  values = metrics(samples) | {'keywords/truncated': 2, 'misalignment/cc/undefined': 3}
  writer.write(
    path, samples, gallery.thumbnails, values, intervals(samples), title='a <b> & c'
  )
  return path


@pytest.fixture(scope='module')
def chromium():
  binary, driver = map(shutil.which, ('chromium', 'chromedriver'))
  if not (binary and driver):
    pytest.skip('needs chromium and chromedriver, such as Debian has them')
  webdriver = pytest.importorskip('selenium.webdriver')
  options = webdriver.ChromeOptions()
  options.binary_location = binary
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  for name in (
    *('headless=new', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run'),
    *('disable-background-networking', 'disable-component-update', 'disable-sync'),
    *('disable-dev-shm-usage', 'window-size=1200,900'),
  ):
    options.add_argument(f'--{name}')
  browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
  yield browser
  browser.quit()


@pytest.fixture
def opened(chromium, page):
  chromium.get(f'file://{page}')
  return chromium


def find(browser, selector: str):
  return browser.find_element('css selector', selector)


def texts(browser, selector: str) -> list[str]:
  return [e.text for e in browser.find_elements('css selector', selector)]


def uids(browser) -> list[str]:
  return [text[4:] for text in texts(browser, '#samples tbody .uid')]


def press(browser, *keys: str) -> None:
  for key in keys:
    browser.switch_to.active_element.send_keys(key)


def wait_for_heat(browser, drawn: str) -> None:
  from selenium.webdriver.support.ui import WebDriverWait

  WebDriverWait(browser, 10).until(
    lambda b: find(b, '#heat').get_attribute('data-drawn') == drawn
  )


def pixel(browser, right: float, down: float) -> list[int]:
  """Red, green, blue and opacity of the heat at fractions of its size."""
  return browser.execute_script(
    'const c = document.getElementById("heat");'
    'return [...c.getContext("2d").getImageData('
    'arguments[0] * c.width, arguments[1] * c.height, 1, 1).data]',
    right,
    down,
  )


def test_prompts_are_shown_and_not_run(opened):
  assert opened.title == 'a <b> & c'
  assert find(opened, 'h1').text == 'a <b> & c'
  shown = find(opened, '#samples tbody tr:nth-child(2) button').get_attribute(
    'textContent'
  )
  assert shown == HOSTILE + 'uid-1'
  assert not opened.find_elements('css selector', 'td script, td button img')


def test_nothing_is_fetched_and_nothing_complains(opened):
  """Not even by what an attacker could add: the page's policy refuses it."""
  assert opened.get_log('browser') == []
  opened.execute_script(
    'document.body.append(Object.assign(document.createElement("script"),'
    '{textContent: "document.title = 1"}));'
    'document.body.append(Object.assign(document.createElement("img"),'
    '{src: "http://127.0.0.1:9/x.png"}))'
  )
  assert opened.title == 'a <b> & c'
  complaints = [entry['message'] for entry in opened.get_log('browser')]
  assert len(complaints) == 2
  assert all('Content Security Policy' in text for text in complaints)
  events = [json.loads(e['message'])['message'] for e in opened.get_log('performance')]
  urls, blocked = {}, set()
  for event in events:
    values = event['params']
    if event['method'] == 'Network.requestWillBeSent':
      urls[values['requestId']] = values['request']['url']
    elif values.get('blockedReason') == 'csp':
      blocked.add(values['requestId'])
  assert {urls.pop(request) for request in blocked} == {'http://127.0.0.1:9/x.png'}
  assert {url.split(':')[0] for url in urls.values()} == {'file', 'data'}


def test_metrics_are_shown_with_intervals(opened):
  rows = texts(opened, '#metrics tr')
  # Two images have maps. Implausibility is answered upside down, misalignment is right.
  (cc,) = (row for row in rows if row.startswith('CC'))
  low = -1 / 3  # A quarter is 1: the covariance is -1/16, both variances 3/16.
  shown = f'{low:.3f} {low:.3f} … {low:.3f}'.replace('-', '−')
  assert cc == f'CC ↑ {shown} 1.000 1.000 … 1.000 (3 undefined)'
  assert '–' in next(row for row in rows if row.startswith('average precision'))
  assert '2 prompts were cut' in find(opened, 'header p').text


def test_filters(opened):
  assert uids(opened) == ['0', '1', '2']

  def only(**fields: str) -> list[str]:
    find(opened, '#all').click()
    for name, value in fields.items():
      find(opened, f'#filters [name={name}]').send_keys(value)
    return uids(opened)

  assert only(text='BLUE') == ['2']
  assert only(text='uid-1') == ['1']
  assert only(error='0.05') == ['1', '2']
  assert only(error='0.05', words='2') == ['2']
  # The third has no maps, so none that is bad.
  assert only(implausibility='0') == ['0', '1']
  assert only(misalignment='0') == []
  assert find(opened, '#shown').text == '0 of 3 samples'
  assert only() == ['0', '1', '2']


def test_sorting(opened):
  def click(column: int) -> list[str]:
    find(opened, f'#samples th:nth-child({column}) button').click()
    return uids(opened)

  assert click(3) == ['2', '1', '0']
  assert (
    find(opened, '#samples th:nth-child(3)').get_attribute('aria-sort') == 'descending'
  )
  assert click(3) == ['0', '1', '2']
  assert click(6) == ['2', '1', '0']
  # What is not defined comes last, up or down.
  assert click(4)[-1] == '2'
  assert click(4)[-1] == '2'
  assert click(2) == ['1', '0', '2']


def test_the_heat_has_the_colours_of_the_panels(opened):
  find(opened, '#samples tbody tr:nth-child(1)').click()
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  colours, alpha = panels.heat(np.array([1.0, 0.0]))
  np.testing.assert_allclose(
    pixel(opened, 0.9, 0.1), [*colours[0], 255 * alpha[0]], atol=4
  )
  assert pixel(opened, 0.1, 0.9)[3] == 0
  assert find(opened, '#peak').text == 'max 1.00'
  find(opened, '#controls [value=predicted]').click()
  wait_for_heat(opened, 'uid-0 implausibility predicted')
  np.testing.assert_allclose(
    pixel(opened, 0.9, 0.9), [*colours[0], 255 * alpha[0]], atol=4
  )
  assert pixel(opened, 0.9, 0.1)[3] == 0


def test_the_slider_fades_the_heat(opened):
  from selenium.webdriver.common.keys import Keys

  find(opened, '#samples tbody tr:nth-child(1)').click()
  slider, heat = find(opened, '[name=opacity]'), find(opened, '#heat')
  assert float(heat.value_of_css_property('opacity')) == 0.8
  slider.send_keys(Keys.HOME)
  assert float(heat.value_of_css_property('opacity')) == 0
  assert (
    find(opened, '#picture').value_of_css_property('filter')
    == 'grayscale(0) contrast(1)'
  )
  slider.send_keys(Keys.END)
  assert float(heat.value_of_css_property('opacity')) == 1


def test_by_keyboard_alone(opened):
  from selenium.webdriver.common.keys import Keys

  tab = Keys.TAB
  press(opened, *itertools.repeat(tab, 6))
  assert opened.switch_to.active_element.get_attribute('id') == 'all'
  press(opened, *itertools.repeat(tab, 6), tab, Keys.ENTER)
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-1, 2 of 3'
  press(opened, 't', 'm')
  wait_for_heat(opened, 'uid-1 misalignment predicted')
  press(opened, '0')
  assert float(find(opened, '#heat').value_of_css_property('opacity')) == 0
  press(opened, Keys.ARROW_RIGHT, 't')
  assert find(opened, '#missing').is_displayed()
  assert not find(opened, '#heat').is_displayed()
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-2, 3 of 3'
  press(opened, Keys.ESCAPE)
  assert not find(opened, '#viewer').is_displayed()
  assert 'uid-2' in opened.switch_to.active_element.text


def test_arrows_behind_the_mouse(opened):
  """Who clicked the slider and then presses an arrow means the next sample."""
  from selenium.webdriver.common.keys import Keys

  find(opened, '#samples tbody tr:nth-child(1)').click()
  slider = find(opened, '[name=opacity]')
  slider.click()
  value = slider.get_property('value')
  press(opened, Keys.ARROW_RIGHT)
  assert find(opened, '#name').text == 'uid-1, 2 of 3'
  assert slider.get_property('value') == value


def test_words_and_scores(opened):
  find(opened, '#samples tbody tr:nth-child(3)').click()
  words = opened.find_elements('css selector', '#prompt .word')
  assert [word.text for word in words] == ['two', 'blue', 'dogs']
  true = ['true' in word.get_attribute('class') for word in words]
  assert true == [True, True, False]
  shades = [word.value_of_css_property('background-color') for word in words]
  assert shades == [
    f'rgba(255, 140, 40, {p})'.replace('0.0)', '0)') for p in (0.0, 0.3, 0.6)
  ]
  bars = texts(opened, '.score')
  assert bars[0].split() == [
    *('plausibility', 'annotated', '0.25', 'predicted', '0.45')
  ]
  assert bars[3].split() == ['overall', 'annotated', '–', 'predicted', '0.70']


def test_the_highest_value_is_the_maps_own(opened):
  """The thumbnail's would be lower."""
  opened.execute_script('samples[0].heat.implausibility[0].peak = 0.123')
  find(opened, '#samples tbody tr:nth-child(1)').click()
  wait_for_heat(opened, 'uid-0 implausibility annotated')
  assert find(opened, '#peak').text == 'max 0.12'


def test_buttons_and_bars_have_names(opened):
  find(opened, '#samples tbody tr:nth-child(1)').click()
  names = ('previous sample', 'next sample', 'close')
  for name, button in zip(names, ('previous', 'next', 'close'), strict=True):
    assert find(opened, f'#{button}').accessible_name == name
  bars = find(opened, '.score').get_attribute('textContent')
  assert bars == 'plausibilityannotated 0.25predicted 0.25'


@pytest.mark.parametrize('size', [(300, 20), (20, 300)])
def test_long_words_and_narrow_images_fit(chromium, tmp_path, size):
  record = make_record(0)._replace(
    prompt='x' * 5000,
    tokens=('x' * 5000,),
    keyword_labels=(0,),
    image=images.encode_png(np.full((*size, 3), 128, np.uint8)),
  )
  prediction = make_prediction(0, 1)
  gallery, sample = Gallery(thumbnails=1), score(record, prediction)
  gallery.add(record, prediction, sample)
  path = epath.Path(tmp_path) / 'wide.html'
  writer.write(path, [sample], gallery.thumbnails, {}, {}, title='wide')
  chromium.get(f'file://{path}')
  find(chromium, '#samples tbody td').click()
  wait_for_heat(chromium, 'uid-0 implausibility annotated')
  width, dialog, height, scale = chromium.execute_script(
    'const size = (name) => document.querySelector(name).getBoundingClientRect();'
    'return [document.documentElement.scrollWidth, size("dialog").width,'
    'size(".stage").height, size(".stage").width / size(".stage").height]'
  )
  assert width <= 1200
  assert dialog <= 1200
  assert height < 800
  thumbnail = images.decode_image(gallery.thumbnails[0].image)
  assert scale == pytest.approx(thumbnail.shape[1] / thumbnail.shape[0], rel=0.02)


@pytest.mark.parametrize(('scheme', 'dark'), [('light', False), ('dark', True)])
def test_light_and_dark(opened, scheme, dark):
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
  colour = find(opened, 'body').value_of_css_property('background-color')
  red = int(colour.split('(')[1].split(',')[0])
  assert (red < 60) is dark


def test_only_those_with_a_picture_are_listed(tmp_path):
  sample = Sample('x', (0.5,) * 4, (math.nan,) * 4, {}, (), ())
  path = epath.Path(tmp_path) / 'x.html'
  writer.write(path, [sample] * 1500, [], {}, {}, title='x')
  text = path.read_text()
  assert '1,500 samples' in text
  assert 'The first 0 samples are listed' in text


def test_a_thousand_real_images_are_a_few_megabytes(assets, tmp_path):
  import pyarrow.parquet as pq

  gallery, samples = Gallery(thumbnails=100), []
  rng = np.random.default_rng(0)
  for file in sorted((assets / 'richhf_sample' / 'pickapic').rglob('*.parquet')):
    table = pq.read_table(file, columns=['jpg_0', 'jpg_1'])
    for image in itertools.chain(*(row.values() for row in table.to_pylist())):
      x, y = rng.random((2, 1, 1))
      grid = np.mgrid[:512, :512] / 512
      heat = np.exp(-((grid[0] - x) ** 2 + (grid[1] - y) ** 2) * 40).astype(np.float32)
      data = images.encode_map(heat)
      record = make_record(0)._replace(
        image=image, implausibility_map=data, misalignment_map=data
      )
      prediction = make_prediction(0, 3)._replace(maps=np.stack([heat, heat]))
      samples.append(score(record, prediction))
      gallery.add(record, prediction, samples[-1])
  path = epath.Path(tmp_path) / 'real.html'
  writer.write(path, samples, gallery.thumbnails, {}, {}, title='real')
  assert len(samples) >= 18
  assert path.stat().length / len(samples) < 8_000
