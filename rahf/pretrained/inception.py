"""Reads FID's Inception v3: pytorch-fid's file pt_inception-2015-12-05-6726825d.pth.

The architecture is fixed, so that any other array or shape is an error. The classifier,
of TensorFlow's 1,008 classes, is not used; it tells the file from other Inceptions,
whose features give other distances.
"""

import re
from collections.abc import Mapping

import jax.numpy as jnp
from etils import epath
from flax import traverse_util

from rahf.errors import InputError
from rahf.models.inception import FEATURES, abstract_variables
from rahf.pretrained.hf_names import conv, identity, rename_arrays
from rahf.pretrained.source import Source, Weight
from rahf.pretrained.tensors import Tensors, read_weights

FILE = 'pt_inception-2015-12-05-6726825d.pth'
CLASSES = 1008
SHOWN_PROBLEMS = 5
IGNORED = {
  r'.*\.num_batches_tracked': 'counter of batches',
  r'fc\.(weight|bias)': 'classifier',
}
# Arrays that every Inception v3 in torchvision's names has.
INCEPTION_ARRAYS = {'Conv2d_1a_3x3.conv.weight', 'Mixed_7c.branch_pool.bn.running_var'}
PARTS = {
  'conv.weight': ('', 'conv/kernel', conv),
  'bn.weight': ('', 'bn/scale', identity),
  'bn.bias': ('', 'bn/bias', identity),
  'bn.running_mean': ('batch_stats/', 'bn/mean', identity),
  'bn.running_var': ('batch_stats/', 'bn/var', identity),
}
TABLE = [
  row
  for theirs, (collection, ours, arrange) in PARTS.items()
  for row in (
    (rf'(\w+)\.{theirs}', rf'{collection}inception/\1/{ours}', arrange),
    (rf'(\w+)\.(\w+)\.{theirs}', rf'{collection}inception/\1/\2/{ours}', arrange),
  )
]


def open_inception(path: epath.PathLike) -> Source:
  """Opens the file without reading its arrays.

  Args:
    path: pytorch-fid's file, of any version of torch.save, or the same arrays in
      safetensors; local or in a bucket (gs://…).

  Raises:
    InputError: it is another network, damaged, or not safe to read.
  """
  path = epath.Path(path)
  if not path.exists():
    raise InputError(
      f'{path} does not exist; nothing is downloaded. FID needs {FILE} of the releases '
      'of pytorch-fid'
    )
  tensors = read_weights(path)
  _check_classes(path, tensors)
  ignored = {
    name: reason
    for name in tensors
    for pattern, reason in IGNORED.items()
    if re.fullmatch(pattern, name)
  }
  used = ((name, t) for name, t in tensors.items() if name not in ignored)
  placed = rename_arrays(str(path), used, TABLE)
  _check_places(path, placed)
  statistics = {p: w for p, w in placed.items() if p.startswith('batch_stats/')}
  weights = {p: w for p, w in placed.items() if p not in statistics}
  return Source(
    'FID Inception', str(path), weights, ignored, {}, collections=statistics
  )


def _check_classes(path: epath.Path, tensors: Tensors) -> None:
  """Raises InputError if the classifier is not that of TensorFlow's network."""
  classifier = tensors.get('fc.weight')
  if classifier is None or classifier.shape != (CLASSES, FEATURES):
    found = 'no classifier' if classifier is None else f'{list(classifier.shape)}'
    raise InputError(
      f"{path} is not FID's Inception, whose fc.weight has the shape "
      f"{[CLASSES, FEATURES]}, but has {found}; give {FILE} from pytorch-fid's "
      "releases. Other Inceptions, such as torchvision's, give other distances"
    )


def _check_places(path: epath.Path, placed: Mapping[str, Weight]) -> None:
  """Raises InputError unless all arrays of the network are there, and no others."""
  variables = abstract_variables()
  expected = traverse_util.flatten_dict({'inception': variables['params']}, sep='/')
  expected |= traverse_util.flatten_dict(
    {'batch_stats': {'inception': variables['batch_stats']}}, sep='/'
  )
  problems = [
    f'{placed[name].name} has no place in it'
    for name in sorted(placed.keys() - expected.keys())
  ]
  for name, leaf in expected.items():
    weight = placed.get(name)
    if weight is None:
      problems.append(f'it lacks {name}')
    elif weight.shape != leaf.shape or not jnp.issubdtype(weight.dtype, jnp.floating):
      problems.append(
        f'{weight.name} is {weight.dtype}{list(weight.shape)} in our layout, not '
        f'floats{list(leaf.shape)}'
      )
  if problems:
    more = len(problems) - SHOWN_PROBLEMS
    raise InputError(
      f"{path} is not FID's Inception: {'; '.join(problems[:SHOWN_PROBLEMS])}"
      + (f'; and {more} more' if more > 0 else '')
    )
