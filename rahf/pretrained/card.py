"""The model card of a work directory: what the model is and started from."""

from rahf.models.rahf import RAHFConfig
from rahf.pretrained.loading import ROLES, Plan, count, ignored_lines

ABOUT = """# RAHF model

Reads an image and the prompt that it was generated from. Predicts where it is
implausible and where it does not fit the prompt, four scores from 0 to 1 (plausibility,
alignment, aesthetics, overall; higher is better), and which words of the prompt it
misses. Liang et al., Rich Human Feedback for Text-to-Image Generation, CVPR 2024.
"""


def model_card(model: RAHFConfig, plan: Plan) -> str:
  """Returns Markdown: sizes, sources of the initial weights, licences passed on."""
  parameters = count(leaf.shape for leaf in plan.params.values())
  lines = [
    ABOUT,
    f'- Variant: {model.variant}, {model.image_size} px',
    f'- Parameters: {parameters}',
    '',
    '## Initial weights',
    '',
  ]
  if not plan.sources:
    lines.append('Trained from scratch.')
  for role, source in plan.sources.items():
    mine = [path for path in plan.loaded if path.startswith(ROLES[role])]
    resized = plan.resized.intersection(mine)
    lines.append(f'- {source.kind}, `{source.path}`: {plan.count(mine)} loaded')
    if resized:
      lines.append(f'  - of these resampled: {plan.count(resized)}')
    lines += [f'  - ignored: {line}' for line in ignored_lines(source)]
  if plan.sources:
    lines.append(f'- Random at the start: {plan.count(plan.fresh)}')
  licences = {s.licence: s for s in plan.sources.values() if s.licence}
  if licences:
    lines += ['', '## Licence', '']
  for licence, source in licences.items():
    lines += [
      f'What is trained from {source.kind}, `{source.path}`, is under its terms too:',
      '',
      licence,
    ]
  return '\n'.join(lines) + '\n'
