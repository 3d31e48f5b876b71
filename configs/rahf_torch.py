r"""RAHF from the public PyTorch checkpoint: ViT-L/16, 384 px, T5 1.0 base, multi-head.

The checkpoint's architecture differs from the paper's (section 4.2) in sizes, score
head, decoder input and some details. The first command needs neither data nor training:
it writes a model directory for `rahf.load(DIR)`, `--mode=infer --model=DIR`, rewards
and the service. `spiece.model` is T5's tokenizer. The second command fine-tunes the
checkpoint.

  python -m rahf.main --config=configs/rahf_torch.py \
    --config.init.rahf=rahf_model.pt --config.tokenizer=spiece.model \
    --mode=export --config.export.dir=DIR
  python -m rahf.main --config=configs/rahf_torch.py \
    --config.init.rahf=rahf_model.pt --workdir=runs/rahf_torch

Hardware: TPU or GPU nodes. Not yet run. Reported results of the checkpoint on
RichHF-18K test: plausibility PLCC .739, implausibility CC .525, keywords F1 47.5
(averaged over prompts). Its licence, CC BY-NC 4.0, also applies to derived models.
"""

from ml_collections import ConfigDict

from rahf.config import T5_VOCABULARY, default_config


def get_config() -> ConfigDict:
  config = default_config()
  config.init.rahf = 'rahf_model.pt'
  config.tokenizer = T5_VOCABULARY
  model = config.model
  model.update(variant='multi_head', image_size=384)
  model.vit.update(width=1024, layers=24, heads=16, mlp=4096)
  model.vit.update(norm_epsilon=1e-12, gelu='exact')
  model.t5.update(mlp=3072, activations=('relu',), tied_logits=True)
  model.heatmap_head.relu_before_norm = True
  model.score_head.update(convs=(768, 384, 192, 96, 48, 12), dense=(512, 128))
  model.score_head.update(size=3, stride=1, padding='SAME')
  # The checkpoint was trained with a few padding tokens per batch. Our fixed length has
  # many more, so masking them is closer to its training.
  model.update(keep_class_token=True, decoder_sees_image=False, mask_padding=True)
  # The values at the end of its training.
  config.optimizer.update(learning_rate=1e-5, weight_decay=2e-3)
  return config
