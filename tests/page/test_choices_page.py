"""The page of chosen images: hostile text, narrow screens, nothing loaded."""

import io
import tempfile

import pytest
from hostile import HTML
from PIL import Image
from selenium.webdriver import Chrome

from rahf.learning import choices_page
from rahf.learning.best_of_n import Candidate, Choice
from rahf.learning.choices_folder import Thumbnails

NAN = float('nan')


@pytest.fixture
def page() -> str:
  """Two prompts, of which the second is not shown."""
  with tempfile.TemporaryFile() as file:
    thumbnails, picture = Thumbnails(file), io.BytesIO()
    Image.new('RGB', (30, 20), 'red').save(picture, 'WEBP')
    for position in (0, 1):
      thumbnails.add(position, picture.getvalue())
    scores = {HTML: 0.25, 'overall': 0.5}
    ranked = [
      Candidate(1, f'folder/{HTML}.png', HTML, HTML, scores, 0.75),
      Candidate(0, 'b.png', HTML, f'a photo of {HTML}', scores, 0.125),
    ]
    failed = [Candidate(2, 'c.png', HTML, HTML, {}, NAN, HTML)]
    choices = [Choice(HTML, ranked, 1, failed), Choice('other', [], 0, [])]
    return choices_page.render(choices, thumbnails, HTML, 1)


def test_text_is_escaped(page):
  assert HTML not in page
  assert '2 prompts, 3 images, 1 chosen.' in page
  assert page.count('<figure class="kept">') == 1
  assert page.count('<figure') == 3
  assert page.count('src="data:image/webp;base64,') == 2
  assert '1 more prompts are in choices.csv' in page


@pytest.mark.parametrize('size', [(1200, 900), (500, 800)])
def test_in_a_browser(chromium: Chrome, page, tmp_path, size):
  path = tmp_path / 'choices.html'
  path.write_text(page)
  chromium.get_log('browser')
  chromium.set_window_size(*size)
  chromium.get(f'file://{path}')
  assert chromium.execute_script('return window.hacked') is None
  assert chromium.get_log('browser') == []
  wide = 'return document.documentElement.scrollWidth - window.innerWidth'
  assert chromium.execute_script(wide) <= 0
  pictures = chromium.find_elements('css selector', 'img')
  assert [one.get_property('naturalWidth') for one in pictures] == [30, 30]
  chromium.set_window_size(1200, 900)
