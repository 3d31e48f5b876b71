"""Creates a work directory with an untrained model, without data or TensorFlow.

python untrained.py CONFIG WORKDIR
"""

import runpy
import sys

import sentencepiece
from etils import epath

from rahf.tasks import make_task
from rahf.training.setup import set_up
from rahf.workdir.checkpoint import Checkpoints
from rahf.workdir.ownership import claim_workdir

config = runpy.run_path(sys.argv[1])['get_config']()
workdir = epath.Path(sys.argv[2]).absolute()
with claim_workdir(workdir, config, started=False):
  checkpoints = Checkpoints(workdir)
  checkpoints.save(0, set_up(make_task(config)).states.make(0).to_tree())
  checkpoints.close()
  with (workdir / 'tokenizer.model').open('wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(['a red circle, a blue square']),
      model_writer=file,
      vocab_size=24,
      hard_vocab_limit=False,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      user_defined_symbols=['_0'],
      minloglevel=2,
    )
