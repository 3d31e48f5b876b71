"""Writes the model card: sizes, initial weights and licences."""

from rahf.pretrained.loading import ROLES, Plan, count, ignored_lines

ABOUT = """# RAHF model

Reads an image and the prompt that it was generated from. Predicts where it is
implausible and where it does not fit the prompt, four scores from 0 to 1 (plausibility,
alignment, aesthetics, overall; higher is better), and which words of the prompt it
misses. Liang et al., Rich Human Feedback for Text-to-Image Generation, CVPR 2024.
"""


def model_card(about: str, model: str, plan: Plan) -> str:
  """Returns Markdown: sizes, sources of the initial weights, and their licences.

  Args:
    about: heading and description of the model, such as `ABOUT`.
    model: the model's variant and size in a few words.
  """
  parameters = count(leaf.shape for leaf in plan.params.values())
  lines = [
    about,
    f'- Model: {model}',
    f'- Parameters: {parameters}',
    '',
    '## Initial weights',
    '',
  ]
  if plan.sources:
    lines += [*_sources(plan), f'- Random at the start: {plan.count(plan.fresh)}']
  else:
    lines.append('Trained from scratch.')
  lines += _licences(plan, 'Models trained from {source} are under its terms, too:')
  return '\n'.join(lines) + '\n'


def weights_section(plan: Plan) -> str:
  """Returns Markdown: sources and licences of weights that are not trained further."""
  lines = ['## Weights', '', 'Converted by rahf, not trained further:', '']
  lines += [*_sources(plan), '', 'Their training data are not recorded here.']
  lines += _licences(plan, 'These are the weights of {source} under its terms:')
  return '\n'.join(lines)


def _sources(plan: Plan) -> list[str]:
  lines = []
  for role, source in plan.sources.items():
    mine = [path for path in plan.loaded if path.startswith(ROLES[role])]
    resized = plan.resized.intersection(mine)
    lines.append(f'- {source.kind}, `{source.path}`: {plan.count(mine)} loaded')
    if resized:
      lines.append(f'  - of these resampled: {plan.count(resized)}')
    lines += [f'  - ignored: {line}' for line in ignored_lines(source)]
  return lines


def _licences(plan: Plan, sentence: str) -> list[str]:
  licences = {s.licence: s for s in plan.sources.values() if s.licence}
  lines = ['', '## Licence', ''] if licences else []
  for licence, source in licences.items():
    named = f'{source.kind}, `{source.path}`,'
    lines += [sentence.format(source=named), '', licence]
  return lines
