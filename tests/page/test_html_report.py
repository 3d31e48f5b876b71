"""The report page in headless Chromium, opened from a file, offline."""

import itertools
import json
import math

import numpy as np
import pytest
from etils import epath
from pages import (
  HOSTILE,
  find,
  make_prediction,
  make_record,
  texts,
  uids,
  wait_for_heat,
)
from selenium.webdriver.support.ui import WebDriverWait

from rahf.data.images import codec
from rahf.evaluation.samples import EvaluatedExample
from rahf.evaluation.score_example import score
from rahf.reports import html_report
from rahf.reports.gallery import Gallery


def test_prompts_are_shown_and_do_not_run(opened):
  assert opened.title == 'a <b> & c'
  assert find(opened, 'h1').text == 'a <b> & c'
  shown = find(opened, '#samples tbody tr:nth-child(2) button').get_attribute(
    'textContent'
  )
  assert shown == HOSTILE + 'uid-1'
  assert not opened.find_elements('css selector', 'td script, td button img')


def test_nothing_is_fetched_or_logged(opened):
  """The page's policy blocks even what an attacker could add."""
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
  # Two images have maps. Implausibility is predicted upside down, misalignment well.
  (cc,) = (row for row in rows if row.startswith('CC'))
  low = -1 / 3  # A quarter is 1: the covariance is -1/16, both variances 3/16.
  shown = f'{low:.3f} {low:.3f} … {low:.3f}'.replace('-', '−')
  assert cc == f'CC ↑ {shown} 1.000 1.000 … 1.000 (3 undefined)'
  assert '–' in next(row for row in rows if row.startswith('average precision'))
  assert '2 prompts were truncated' in find(opened, 'header p').text


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
  # The third has no maps, so no bad ones either.
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
  # Undefined values come last in either direction.
  assert click(4)[-1] == '2'
  assert click(4)[-1] == '2'
  assert click(2) == ['1', '0', '2']


@pytest.mark.parametrize('size', [(300, 20), (20, 300)])
def test_long_words_and_narrow_images_fit(chromium, tmp_path, size):
  record = make_record(0)._replace(
    prompt='x' * 5000,
    tokens=('x' * 5000,),
    keyword_labels=(0,),
    image=codec.encode_png(np.full((*size, 3), 128, np.uint8)),
  )
  prediction = make_prediction(0, 1)
  gallery, sample = Gallery(thumbnails=1), score(record, prediction)
  gallery.add(record, prediction, sample)
  path = epath.Path(tmp_path) / 'wide.html'
  html_report.write(path, [sample], gallery.thumbnails, {}, {}, title='wide')
  chromium.get(f'file://{path}')
  find(chromium, '#samples tbody td').click()
  wait_for_heat(chromium, 'uid-0 implausibility annotated')
  # The picture may load after the map.
  WebDriverWait(chromium, 10).until(
    lambda b: '--ratio' in (find(b, '.stage').get_attribute('style') or '')
  )
  width, dialog, height, scale = chromium.execute_script(
    'const size = (name) => document.querySelector(name).getBoundingClientRect();'
    'return [document.documentElement.scrollWidth, size("dialog").width,'
    'size(".stage").height, size(".stage").width / size(".stage").height]'
  )
  assert width <= 1200
  assert dialog <= 1200
  assert height < 800
  thumbnail = codec.decode_image(gallery.thumbnails[0].image)
  assert scale == pytest.approx(thumbnail.shape[1] / thumbnail.shape[0], rel=0.02)


@pytest.mark.parametrize(('scheme', 'dark'), [('light', False), ('dark', True)])
def test_light_and_dark(opened, scheme, dark):
  feature = {'name': 'prefers-color-scheme', 'value': scheme}
  opened.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
  colour = find(opened, 'body').value_of_css_property('background-color')
  red = int(colour.split('(')[1].split(',')[0])
  assert (red < 60) is dark


def test_only_samples_with_a_picture_are_listed(tmp_path):
  sample = EvaluatedExample('x', (0.5,) * 4, (math.nan,) * 4, {}, (), ())
  path = epath.Path(tmp_path) / 'x.html'
  html_report.write(path, [sample] * 1500, [], {}, {}, title='x')
  text = path.read_text()
  assert '1,500 samples' in text
  assert 'The first 0 samples are listed' in text


def test_a_thousand_real_images_take_a_few_megabytes(assets, tmp_path):
  import pyarrow.parquet as pq

  gallery, samples = Gallery(thumbnails=100), []
  rng = np.random.default_rng(0)
  for file in sorted((assets / 'richhf_sample' / 'pickapic').rglob('*.parquet')):
    table = pq.read_table(file, columns=['jpg_0', 'jpg_1'])
    for image in itertools.chain(*(row.values() for row in table.to_pylist())):
      x, y = rng.random((2, 1, 1))
      grid = np.mgrid[:512, :512] / 512
      heat = np.exp(-((grid[0] - x) ** 2 + (grid[1] - y) ** 2) * 40).astype(np.float32)
      data = codec.encode_map(heat)
      record = make_record(0)._replace(
        image=image, implausibility_map=data, misalignment_map=data
      )
      prediction = make_prediction(0, 3)._replace(maps=np.stack([heat, heat]))
      samples.append(score(record, prediction))
      gallery.add(record, prediction, samples[-1])
  path = epath.Path(tmp_path) / 'real.html'
  html_report.write(path, samples, gallery.thumbnails, {}, {}, title='real')
  assert len(samples) >= 18
  assert path.stat().length / len(samples) < 8_000
