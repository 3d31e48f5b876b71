import pytest
from util import train_model

from rahf.data.tokenizer import Tokenizer


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return Tokenizer(train_model(tmp_path_factory.mktemp('model') / 'a.model', '_0'))
