"""Fixtures: a small report page, and Chromium to open it."""

import shutil

import pytest
from etils import epath
from pages import make_prediction, make_record
from selenium import webdriver

from rahf.evaluation.samples import intervals, metrics
from rahf.evaluation.score_example import score
from rahf.reports import html_report
from rahf.reports.gallery import Gallery


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
  html_report.write(
    path, samples, gallery.thumbnails, values, intervals(samples), title='a <b> & c'
  )
  return path


@pytest.fixture(scope='module')
def chromium():
  binary, driver = map(shutil.which, ('chromium', 'chromedriver'))
  if not (binary and driver):
    pytest.skip('needs chromium and chromedriver (Debian: chromium-driver)')
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
