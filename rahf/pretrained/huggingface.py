"""Opens Hugging Face directories: config.json and the weights of one of four models."""

from collections.abc import Callable

from etils import epath

from rahf.pretrained import clip, hf_config, resnet, t5x, vit_npz
from rahf.pretrained.embedding import NAMES, find_embedding
from rahf.pretrained.hf_names import bare_name, rename_arrays, t5_table, vit_table
from rahf.pretrained.source import Source
from rahf.pretrained.tensors import Tensors, read_tensors

POSITIONS = 'vit/Transformer/posembed_input/pos_embedding'
VIT_IGNORED = {
  'pooler.': 'pooler of the class token',
  'classifier.': 'classifier',
  'embeddings.mask_token': 'token of masked pretraining',
  'decoder.': 'decoder of masked pretraining',
}
UNUSED_BIAS = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'


def open_huggingface(path: epath.PathLike) -> Source:
  """Opens a directory of a T5, ViT, CLIP or ResNet without reading its arrays.

  Raises:
    InputError: it is another model, has a setting or an array that our model does not
      have, or sizes other than those in config.json; or a file is missing or not safe
      to read.
  """
  directory = epath.Path(path)
  config = hf_config.Config(directory / 'config.json')
  if config.get('model_type', None) is None:
    config.fail(
      'there is no model_type, so this is not a Hugging Face model; if it is a work '
      'directory of rahf, continue its run with --workdir'
    )
  read = config.choice('model_type', '', READERS)
  return read(directory, config, read_tensors(directory))


def _vit(directory: epath.Path, config: hf_config.Config, tensors: Tensors) -> Source:
  where, settings = str(directory), hf_config.vit_settings(config)
  ignored = {
    name: reason
    for name in tensors
    for prefix, reason in VIT_IGNORED.items()
    if bare_name(name).startswith(prefix)
  }
  arrays = ((bare_name(name), t) for name, t in tensors.items() if name not in ignored)
  weights = rename_arrays(where, arrays, vit_table(settings['vit.heads']))
  tokens = weights[POSITIONS].shape[1] if POSITIONS in weights else 0
  hf_config.check_vit(config, settings, vit_npz.vit_settings(weights, where), tokens)
  return Source('Hugging Face ViT', where, weights, ignored, settings)


def _t5(directory: epath.Path, config: hf_config.Config, tensors: Tensors) -> Source:
  where, settings = str(directory), hf_config.t5_settings(config)
  arrays = [(bare_name(name), tensor) for name, tensor in tensors.items()]
  weights, ignored = find_embedding(where, arrays, tied=settings['t5.tied_logits'])
  unused = {t.name for name, t in arrays if name == UNUSED_BIAS}
  ignored |= dict.fromkeys(
    unused, 'T5 has no position bias between decoder and encoder'
  )
  rest = [
    pair for pair in arrays if pair[0] not in NAMES and pair[1].name not in unused
  ]
  weights |= rename_arrays(where, rest, t5_table())
  hf_config.check_t5(config, settings, t5x.t5_settings(weights, where))
  return Source('Hugging Face T5', where, weights, ignored, settings)


READERS: dict[str, Callable[[epath.Path, hf_config.Config, Tensors], Source]] = {
  'vit': _vit,
  't5': _t5,
  'clip': clip.from_huggingface,
  'resnet': resnet.from_huggingface,
}
