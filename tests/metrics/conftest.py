"""Shared fixtures: published values, and maps that some of them belong to."""

import json

import numpy as np
import pytest


@pytest.fixture(scope='module')
def goldens(assets):
  return json.loads((assets / 'saliency' / 'saliency_goldens.json').read_text())


@pytest.fixture(scope='module')
def pair():
  """The prediction and truth of the goldens' definition matrix."""
  y, x = np.mgrid[:64, :64]
  prediction = 0.02 + 0.9 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2) / 128)
  truth = np.floor(255 * np.exp(-((x - 24) ** 2 + (y - 26) ** 2) / 72)) / 255
  return prediction, truth
