"""What the architecture learns on generated shapes when it is given time.

The model of `quickstart.py` on three times the data, in the paper's better variant:
the augmented prompt (section 4.2), which reads every image with seven texts.

  python -m rahf.main --config=configs/shapes.py --workdir=runs/shapes

The multi-head variant reads one text and takes a third of the time a step, so that
at equal time it makes three times the steps:

  python -m rahf.main --config=configs/shapes.py --workdir=runs/shapes_multi_head \\
    --config.model.variant=multi_head --config.train.steps=18000

Hardware: two CPU cores. Not yet run to the end; about 80 minutes each are expected.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
  config = quickstart.get_config()
  config.model.variant = 'augmented_prompt'
  config.data.text_length = 28  # The task strings need three pieces more.
  config.data.shapes.update(train=60_000, dev=500, test=1000)
  config.optimizer.update(cooldown_steps=1500)
  config.train.update(steps=6000, checkpoint_every=500)
  config.eval.update(every=1000)
  return config
