"""The data and the model name outputs independently, and must agree."""

from rahf.data import schema, tokenizer
from rahf.models import rahf as model


def test_names_of_outputs():
  assert (schema.MAPS, schema.SCORES) == (model.MAPS, model.SCORES)
  assert tokenizer.PAD == model.PAD_ID


def test_texts_of_each_variant():
  for variant in model.VARIANTS:
    texts = tokenizer.tasks(variant)
    assert len(texts) == model.RAHFConfig(variant=variant).texts
  heads = [text.split()[0] for text in tokenizer.tasks('augmented_prompt')[:-1]]
  assert heads == [*model.MAPS, *model.SCORES]
  assert tokenizer.tasks('augmented_prompt')[-1] == ''
