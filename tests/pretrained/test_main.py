"""The command python -m rahf.pretrained."""

import shutil

from rahf.pretrained.__main__ import main


def test_it_describes_a_file_and_its_used_arrays(assets, capsys):
  path = assets / 'golden' / 'vit_tiny_release_names.npz'
  assert main([str(path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == f'ViT release (.npz): {path}'
  assert '  vit.heads = 3' in lines
  assert 'positions: 4 x 4, for 32 px; resampled for others' in lines
  assert 'used: 38 arrays, 14,072 values, float32' in lines
  assert '  vit/Transformer/encoderblock_*: 32 arrays, 8,960 values' in lines
  assert 'ignored: 2 arrays: pretraining classifier' in lines
  assert lines[-1] == f'to train from it: --config.init.vit={path}'


def test_it_lists_every_array(assets, tmp_path, capsys):
  folder = tmp_path / 't5'
  shutil.copytree(assets / 'golden' / 't5x_v1_0' / 'checkpoint_0', folder)
  assert main([str(folder), '--arrays']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert (
    't5/token_embedder/embedding [256, 16] float32 <- '
    'optimizer/target/token_embedder/embedding'
  ) in lines
  assert "ignored: optimizer/state/step: the optimizer's state" in lines
  assert sum(' <- ' in line for line in lines) == 42


def test_it_reads_every_array(assets, tmp_path, capsys):
  folder = tmp_path / 't5'
  shutil.copytree(assets / 'golden' / 't5x_v1_0' / 'checkpoint_0', folder)
  assert main([str(folder), '--read']) == 0
  lines = capsys.readouterr().out.splitlines()
  (used,) = (line for line in lines if line.startswith('used: '))
  assert lines[-1] == used.replace('used', 'read').replace(', float32', '')
  (folder / 'target.encoder.encoder_norm.scale' / '0').write_bytes(b'spoilt')
  assert main([str(folder)]) == 0
  capsys.readouterr()
  assert main([str(folder), '--read']) == 2
  error = capsys.readouterr().err
  assert error.startswith(
    'error: optimizer/target/encoder/encoder_norm/scale cannot be'
  )


def test_unreadable_files_give_one_message_and_status_2(tmp_path, capsys):
  assert main([str(tmp_path / 'nothing')]) == 2
  out, error = capsys.readouterr()
  assert not out
  assert error.startswith(f'error: {tmp_path / "nothing"} does not exist')
  assert 'Traceback' not in error
