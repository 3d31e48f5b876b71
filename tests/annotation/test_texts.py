"""Texts of pages: complete in every language."""

import re

import pytest

from rahf.annotation.settings import TASKS
from rahf.annotation.texts import ENGLISH, all_texts, language_of


@pytest.mark.parametrize('language', all_texts())
def test_languages_say_the_same(language):
  english, texts = all_texts()[ENGLISH], all_texts()[language]
  assert list(texts) == list(english)
  for name, text in texts.items():
    assert text.strip()
    for pattern in (r'\{\w+\}', r'\n'):
      assert re.findall(pattern, text) == re.findall(pattern, english[name]), name


@pytest.mark.parametrize('task', TASKS)
def test_every_task_has_its_texts(task):
  names = ('tour_title', 'tour', 'keys', 'count', 'progress', 'changing', 'skipped')
  assert {f'{name}_{task}' for name in names} <= all_texts()[ENGLISH].keys()


@pytest.mark.parametrize('language', all_texts())
def test_keys_are_told_from_what_they_do(language):
  lines = '\n'.join(
    text for name, text in all_texts()[language].items() if name.startswith('keys_')
  )
  assert all(len(line.split(': ')) == 2 for line in lines.split('\n'))


def test_the_language_of_a_page():
  assert language_of('de', 'en') == 'de'
  assert language_of('', 'fr;q=0.9, de-AT;q=0.8, en') == 'de'
  assert language_of('xx', '') == ENGLISH
