"""Fixtures: a service of a tiny model."""

import pytest

import rahf
from rahf.service.admission import Limits
from rahf.service.engine import Engine
from served import running, write_model


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return rahf.load(write_model(tmp_path_factory.mktemp('served')), batch_size=4)


@pytest.fixture(scope='module')
def engine(model):
  engine = Engine(model)
  engine.warm_up(lambda line: None)
  yield engine
  assert engine.stop(30)


@pytest.fixture(scope='module')
def port(engine):
  with running(engine, Limits(body=300_000)) as port:
    yield port
