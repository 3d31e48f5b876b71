"""The model card: sources, counts and licences."""

import dataclasses

from rahf.pretrained import loading, open_source
from rahf.pretrained.card import ABOUT, model_card

TERMS = 'CC BY-NC 4.0: not for commercial purposes.'


def test_licences_are_passed_on(assets, describe_params, golden_model):
  model = dataclasses.replace(golden_model, image_size=64)
  path = assets / 'golden' / 'vit_tiny_release_names.npz'
  source = dataclasses.replace(open_source(path), licence=TERMS)
  plan = loading.plan({'vit': source}, describe_params(model), model)
  assert f'  licence: {TERMS}' in plan.report().splitlines()
  card = model_card(ABOUT, 'multi_head, 64 px', plan)
  head, licence = card.split('## Licence')
  assert '- Model: multi_head, 64 px' in head
  assert f'- ViT release (.npz), `{path}`: 38 arrays, 15,224 values' in head
  assert '  - of these resampled: 1 array, 1,560 values' in head
  assert '  - ignored: 2 arrays: pretraining classifier' in head
  assert f'`{path}`, are under its terms, too:\n\n{TERMS}\n' in licence


def test_no_licence_without_sources(describe_params, golden_model):
  plan = loading.plan({}, describe_params(golden_model), golden_model)
  card = model_card(ABOUT, 'multi_head', plan)
  assert 'Trained from scratch.' in card
  assert 'Licence' not in card
