"""Defaults of every setting in one place, and checks that say what to change.

A config file starts from `default_config()`, changes what it is about, and returns
the result; flags such as --config.train.steps=100 change it once more.
"""

import json
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from rahf import rules
from rahf.data.schema import MAPS, SCORES, SPLITS
from rahf.errors import InputError
from rahf.models.heads import HeatmapHeadConfig, ScoreHeadConfig
from rahf.models.layers import ACTIVATIONS
from rahf.models.rahf import RAHFConfig
from rahf.models.t5_layers import T5Config
from rahf.models.vit import ViTConfig

VARIANTS = ('augmented_prompt', 'multi_head')
DECODERS = ('greedy', 'beam', 'sequential', 'parallel')
DTYPES = ('float32', 'bfloat16')
GELUS = ('tanh', 'exact')
REMATS = ('none', 'heads', 'blocks')
PADDINGS = ('VALID', 'SAME')
# By what train.keep_best may choose; of losses the lowest is the best.
CRITERIA = (
  '',
  *(f'loss/{name}' for name in ('total', 'heatmap', 'score', 'sequence')),
  *(f'{name}/{value}' for name in SCORES for value in ('plcc', 'srcc')),
  *(f'{name}/cc' for name in MAPS),
  *('keywords/f1', 'keywords_constrained/f1'),
)
# No model has more; what is made of a wrong number would fill every memory.
WIDTH = rules.whole(1, 2**17)
LAYERS = rules.whole(1, 200)
SIDE = rules.whole(1, 8192)
TRUTHS = ('keep_class_token', 'decoder_sees_image', 'mask_padding')
COUNT, POSITIVE = rules.whole(0), rules.whole(1)
FACTOR = rules.real(0, 1e6)
WIDTHS = rules.sequence(WIDTH, '(64, 32)')
# Of every setting, by its path.
RULES: dict[str, rules.Rule] = {
  'seed': rules.whole(0, rules.MOST - 1),
  'model.variant': rules.one_of(VARIANTS),
  **dict.fromkeys(('model.image_size', 'model.vit.patch'), SIDE),
  **dict.fromkeys(('model.vit.width', 'model.vit.mlp', 'model.vit.heads'), WIDTH),
  'model.vit.layers': LAYERS,
  'model.vit.class_token': rules.truth,
  'model.vit.norm_epsilon': rules.real(1e-30, 1),
  'model.vit.gelu': rules.one_of(GELUS),
  'model.t5.vocab_size': rules.whole(1, 2**22),
  **{f'model.t5.{name}': WIDTH for name in ('width', 'heads', 'head_dim', 'mlp')},
  **{f'model.t5.{name}_layers': LAYERS for name in ('encoder', 'decoder')},
  'model.t5.activations': rules.sequence(
    rules.one_of(tuple(ACTIVATIONS)), "('gelu', 'linear')", least=1
  ),
  'model.t5.tied_logits': rules.truth,
  **{f'model.heatmap_head.{name}': WIDTHS for name in ('convs', 'deconvs')},
  'model.heatmap_head.readout': WIDTH,
  'model.heatmap_head.relu_before_norm': rules.truth,
  **{f'model.score_head.{name}': WIDTHS for name in ('convs', 'dense')},
  **{f'model.score_head.{name}': SIDE for name in ('size', 'stride')},
  'model.score_head.padding': rules.one_of(PADDINGS),
  **{f'model.{name}': rules.truth for name in TRUTHS},
  'model.remat': rules.one_of(REMATS),
  'model.dropout_rate': rules.real(0, 0.99),
  'model.dtype': rules.one_of(DTYPES),
  **{f'init.{name}': rules.text for name in ('vit', 't5', 'rahf')},
  **dict.fromkeys(('tokenizer', 'data.name', 'data.dir'), rules.text),
  'data.mixture': rules.sequence(
    rules.pair(rules.text, rules.real(1e-9, 1e9)),
    "(('richhf18k', 2.0), ('shapes', 1.0)), pairs of a name and a weight above 0",
  ),
  **{f'data.{name}_length': rules.whole(1, 2**14) for name in ('text', 'target')},
  'data.augment': rules.truth,
  **{f'data.{name}_words': rules.whole(-1) for name in ('min', 'max')},
  'data.max_skipped': COUNT,
  'data.shapes.image_size': rules.whole(64, 8192),
  **{f'data.shapes.{name}': COUNT for name in (*SPLITS, 'seed')},
  **{f'loss.{name}': FACTOR for name in ('heatmap', 'score', 'sequence')},
  'optimizer.learning_rate': FACTOR,
  **{f'optimizer.{name}_steps': COUNT for name in ('warmup', 'cooldown')},
  'optimizer.weight_decay': FACTOR,
  # No gradient would be left of one that is clipped to 0.
  'optimizer.clip_norm': rules.real(1e-9),
  **{f'optimizer.{name}': rules.real(0, 0.999999) for name in ('b1', 'b2')},
  'optimizer.freeze': rules.sequence(rules.pattern, "('^vit/',)"),
  'optimizer.rate_factors': rules.sequence(
    rules.pair(rules.pattern, FACTOR), "(('^vit/', 0.1),)"
  ),
  **{f'train.{name}': POSITIVE for name in ('steps', 'log_every', 'checkpoint_every')},
  **{f'train.{name}': rules.whole(1, 2**20) for name in ('batch_size', 'accumulate')},
  'train.keep_checkpoints': rules.optional(POSITIVE),
  'train.keep_best': rules.one_of(CRITERIA),
  'train.max_skipped': COUNT,
  'eval.every': POSITIVE,
  'eval.batch_size': rules.whole(1, 2**20),
  **{f'eval.{name}': rules.one_of(SPLITS) for name in ('split', 'final_split')},
  **{f'review.{name}': COUNT for name in ('examples', 'worst', 'page')},
  'keywords.decoder': rules.one_of(DECODERS),
  'keywords.beams': rules.whole(1, 1000),
  'keywords.threshold_split': rules.one_of(SPLITS),
  **{f'mesh.{name}': rules.whole(-1) for name in ('data', 'fsdp', 'tensor')},
  **dict.fromkeys(('precompile.topology', 'export.dir'), rules.text),
  'export.step': rules.whole(-1),
  **{'export.program': rules.truth, 'export.dtype': rules.one_of(('', *DTYPES))},
}
MOST_TOKENS = 2**14  # Of an image; attention compares each with each.
# T5's public vocabulary, readable without an account.
T5_VOCABULARY = 'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'


def default_config() -> ConfigDict:
  """Returns the paper's sizes and the supplement's recipe; all fields are locked."""
  model = ConfigDict(
    dict(
      variant='augmented_prompt',
      image_size=512,
      vit=dict(
        patch=16,
        width=768,
        layers=12,
        heads=12,
        mlp=3072,
        class_token=True,
        norm_epsilon=1e-6,
        gelu='tanh',
      ),
      t5=dict(
        vocab_size=32128,
        width=768,
        heads=12,
        head_dim=64,
        mlp=2048,
        encoder_layers=12,
        decoder_layers=12,
        activations=('gelu', 'linear'),
        tied_logits=False,
      ),
      heatmap_head=dict(
        convs=(768, 384),
        deconvs=(768, 384, 384, 192),
        readout=192,
        relu_before_norm=False,
      ),
      score_head=dict(
        convs=(768, 384, 128, 64),
        size=2,
        stride=2,
        padding='VALID',
        dense=(2048, 1024),
      ),
      keep_class_token=False,
      decoder_sees_image=True,
      mask_padding=True,
      # What is computed twice to save memory: 'none', 'heads' or 'blocks'.
      remat='none',
      dropout_rate=0.1,
      dtype='bfloat16',
    )
  )
  config = ConfigDict(
    dict(
      seed=0,
      model=model,
      # Weights of other projects to start from (`rahf/pretrained`), '' for none: a
      # ViT, a T5, or instead of both a whole RAHF. Paths, local or gs://.
      init=dict(vit='', t5='', rahf=''),
      # A SentencePiece model; '' is the one that lies with the data set.
      tokenizer='',
      data=dict(
        # Below `dir`, as `python -m rahf.data prepare` wrote it; 'shapes' are made.
        name='richhf18k',
        dir='data',
        # What is trained on, if not on `name` alone, which evaluations are of: pairs of
        # such a name and a weight, as (('richhf18k', 2.0), ('rapidata', 1.0)).
        mixture=(),
        text_length=128,
        target_length=192,
        augment=True,
        # Leave training prompts with fewer or more words out; -1 is no limit.
        min_words=-1,
        max_words=-1,
        # Damaged records that a process may pass over in training since it started;
        # with 0 it stops at the first.
        max_skipped=0,
        # Only read when name is 'shapes'.
        shapes=dict(image_size=64, train=10000, dev=500, test=1000, seed=0),
      ),
      loss=dict(heatmap=1.0, score=1.0, sequence=1.0),
      optimizer=dict(
        learning_rate=1e-3,
        warmup_steps=2000,
        # The rate falls to 0 over the last so many steps.
        cooldown_steps=0,
        weight_decay=1e-3,
        clip_norm=1.0,
        b1=0.9,
        b2=0.999,
        # Regular expressions over parameter paths, such as '^vit/'.
        freeze=(),
        # Pairs of such an expression and a factor on the rate of what it matches.
        rate_factors=(),
      ),
      train=dict(
        steps=20000,
        # Images, whatever the number of texts each is read with.
        batch_size=256,
        # Micro-batches per step.
        accumulate=1,
        log_every=50,
        checkpoint_every=1000,
        # The newest so many, None for all, and the one whose evaluation on `eval.split`
        # has the best value of this metric, such as 'overall/srcc'; '' for none.
        keep_checkpoints=3,
        keep_best='',
        # How many steps whose loss or gradient is not finite are left out, their
        # batches unused; one more ends the run.
        max_skipped=0,
      ),
      eval=dict(
        every=2000,
        batch_size=64,
        split='dev',
        # Evaluated once more when training is done.
        final_split='test',
      ),
      # What is drawn of each evaluation: so many examples at even distances and the
      # worst of each kind for TensorBoard, and how many samples the report page lists.
      review=dict(examples=4, worst=2, page=1000),
      keywords=dict(
        # How they are read from the decoder: 'greedy', 'beam', or along the prompt,
        # 'sequential' or 'parallel' (`models/constrained.py`). Evaluations report
        # free and constrained decoding side by side: greedy unless this is 'beam',
        # sequential unless it is 'parallel'.
        decoder='sequential',
        beams=4,
        # Where the threshold of constrained decoding is chosen.
        threshold_split='dev',
      ),
      mesh=dict(data=-1, fsdp=1, tensor=1),
      # For --mode=precompile: a TPU topology such as 'v5e:2x4'; '' is what is here.
      precompile=dict(topology=''),
      # For --mode=export: which checkpoint, -1 for the newest; where to, '' for
      # DIR/export; whether to add a `jax.export` artifact of the inference step; what
      # to compute in, '' for the dtype of training, for init.rahf as it is float32.
      export=dict(step=-1, dir='', program=False, dtype=''),
    )
  )
  return config.lock()


def model_config(config: ConfigDict) -> RAHFConfig:
  """Returns the model's sizes as the modules take them."""
  fields = config.model.to_dict()
  return RAHFConfig(
    **fields
    | dict(
      vit=ViTConfig(**fields['vit']),
      t5=T5Config(**fields['t5']),
      heatmap_head=HeatmapHeadConfig(**fields['heatmap_head']),
      score_head=ScoreHeadConfig(**fields['score_head']),
    )
  )


def validate(config: ConfigDict) -> None:
  """Checks the settings against each other, before anything is loaded.

  Raises:
    InputError: the first problem, with its field, value and a way out.
  """
  settings = dict(_flattened(config))
  missing = sorted(RULES.keys() - settings.keys())
  for field in [*missing, *sorted(settings.keys() - RULES.keys())]:
    problem = 'is missing' if field in missing else 'is no setting'
    raise InputError(
      f'config.{field} {problem}; get_config() changes what rahf.config.'
      'default_config() returns, and returns it'
    )
  for field, rule in RULES.items():
    if problem := rule(settings[field]):
      raise InputError(f'config.{field} = {settings[field]!r:.80} {problem}')
  _check_shapes(config.model)


def _flattened(section: ConfigDict, prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the path and value of each setting."""
  for name, value in section.items():
    if isinstance(value, ConfigDict):
      yield from _flattened(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _check_shapes(model: ConfigDict) -> None:
  """Checks that patches, heads and head stages fit the image's size."""
  if model.image_size % model.vit.patch:
    raise InputError(
      f'config.model.image_size = {model.image_size} is not a multiple of '
      f'config.model.vit.patch = {model.vit.patch}'
    )
  if model.vit.width % model.vit.heads:
    raise InputError(
      f'config.model.vit.width = {model.vit.width} is not a multiple of '
      f'config.model.vit.heads = {model.vit.heads}'
    )
  grid = model.image_size // model.vit.patch
  if grid**2 > MOST_TOKENS:
    raise InputError(
      f'config.model.image_size = {model.image_size} gives {grid} x {grid} patches of '
      f'config.model.vit.patch = {model.vit.patch}, more than {MOST_TOKENS}; take '
      'larger patches, or a smaller image'
    )
  head = model.score_head
  for i, _ in enumerate(head.convs):
    lost = head.size if head.padding == 'VALID' else 1
    grid = (grid - lost) // head.stride + 1
    if grid < 1:
      raise InputError(
        f'config.model.score_head has {len(head.convs)} convolutions, '
        f'but nothing is left of the token grid after {i}; take fewer, or a larger '
        'config.model.image_size'
      )
  if 2 ** len(model.heatmap_head.deconvs) > model.vit.patch:
    raise InputError(
      f'config.model.heatmap_head.deconvs has {len(model.heatmap_head.deconvs)} '
      f'widths, which makes maps larger than the image; log2(patch) of them are '
      f'enough for config.model.vit.patch = {model.vit.patch}'
    )


def to_json(config: ConfigDict) -> str:
  """Returns all settings, sorted, for people and for `differences`."""
  return json.dumps(config.to_dict(), indent=2, sort_keys=True) + '\n'


def differences(old: Any, new: Any, path: str = 'config') -> list[str]:
  """Lists the fields in which two configs, as parsed from JSON, differ."""
  if isinstance(old, dict) and isinstance(new, dict):
    return [
      line
      for key in sorted(old.keys() | new.keys())
      for line in differences(old.get(key), new.get(key), f'{path}.{key}')
    ]
  return [] if old == new else [f'{path}: {old!r} there, {new!r} here']
