// Two images, and buttons to choose. `keys` maps keys to choices.
function pairKind(keys) {
  return {
    show() {
      byId('prompt').textContent = task.prompt;
      for (const [number, side] of ['left', 'right'].entries()) {
        document.querySelector(`.pair img.${side}`).src = imageUrl(task.images[number]);
      }
      if (byId('round')) byId('round').textContent = `${task.turn + 1} / ${task.rounds}`;
      for (const button of document.querySelectorAll('[data-choice]')) {
        // Only an answer that is being changed has an earlier choice.
        button.removeAttribute('aria-pressed');
        if (task.draft?.choice) button.setAttribute('aria-pressed', String(button.dataset.choice === task.draft.choice));
      }
    },
    value: () => null,
    problem: () => '',
    key({key}) {
      if (!keys[key]) return false;
      choose(keys[key]);
      return true;
    },
  };
}

function choose(choice) {
  const [left, right] = task.images;
  store('done', data.task === 'prefer' ? {choice, left, right} : {choice});
}

for (const button of document.querySelectorAll('[data-choice]')) {
  button.addEventListener('click', () => choose(button.dataset.choice));
}
for (const figure of document.querySelectorAll('.pair figure')) {
  // The button is for those who cannot click an image.
  for (const part of figure.children) part.addEventListener('click', () => enlarge(figure.querySelector('img')));
}
