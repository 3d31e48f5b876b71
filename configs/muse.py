r"""Fine-tunes a Muse on images with prompts: aMUSEd, or one of our own.

  python -m rahf.data prepare images --input=PHOTOS --name=photos --out=data
  python -m rahf.main --config=configs/muse.py:amused-256 --config.data.name=photos \
    --workdir=…

`amused-256` is the directory of the public weights, or an export of a generator; sizes
and sampling are read from it. `PHOTOS` is a folder, table or WebDataset with prompts.
`--config.generator.lora_rank=16` trains only low-rank changes of attention; then also
give `--config.optimizer.freeze="('^autoencoder/', '^text/', '^transformer/')"`. The
autoencoder and the text encoder stay as they are. `--mode=export` writes a directory
for `--mode=generate`.

Learning rate and dropping of texts are those of diffusers' example for aMUSEd, but the
text is dropped the right way round; batch, schedule and average are ours. Without a
directory, the sizes are aMUSEd's for 256 px:
`--mode=precompile` says what a slice of TPUs needs. Not yet run with public weights.
"""

from ml_collections import ConfigDict

from rahf.config import default_config
from rahf.inference.generator_directory import read_config


def get_config(weights: str = '') -> ConfigDict:
  """Returns the config; `weights` are those of the Muse to start from."""
  config = read_config(weights) if weights else default_config()
  config.task = 'generator'
  config.init.muse = weights
  config.muse.dtype = 'bfloat16'
  config.muse.transformer.remat = True
  config.data.augment = False
  config.optimizer.update(
    learning_rate=1e-4,
    warmup_steps=500,
    weight_decay=0.01,
    freeze=('^autoencoder/', '^text/'),
  )
  config.train.update(
    steps=1000, batch_size=64, log_every=20, checkpoint_every=250, average=0.999
  )
  config.eval.update(every=250, batch_size=64)
  return config
