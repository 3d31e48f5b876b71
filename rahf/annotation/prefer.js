const kind = pairKind({ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie', 1: 'left', 2: 'tie', 3: 'right'});

if (byId('ask')) {
  const open = () => {
    byId('own-message').textContent = '';
    byId('ask').showModal();
    byId('own-text').focus();
  };
  byId('own').addEventListener('click', open);
  byId('own-done').addEventListener('click', open);
  const key = kind.key;
  kind.key = (event) => {
    if (event.key.toLowerCase() !== 'p') return key(event);
    open();
    return true;
  };
  byId('own-send').addEventListener('click', async (event) => {
    event.preventDefault();
    const {found, problem} = await call('/api/prompt', {prompt: byId('own-text').value});
    if (!found) {
      byId('own-message').textContent = problem;
      return;
    }
    byId('own-text').value = '';
    byId('ask').close();
    showMessage(found.ready ? texts.own_prompt_known : texts.own_prompt_waits);
  });
  // Images may have been drawn meanwhile. Until then, what the page says stays.
  setInterval(async () => {
    if (task || document.hidden || document.querySelector('dialog[open]')) return;
    const {found} = await call('/api/task');
    if (found?.task && !task) follow(found);
  }, 5000);
}
