async function send(path, body) {
  try {
    const response = await fetch(path, {
      method: 'POST', body: JSON.stringify(body),
      headers: {'Content-Type': 'application/json', 'X-CSRF-Token': data.csrf},
    });
    const found = await response.json();
    if (response.ok) return found;
    byId('message').textContent = sentence(found.detail);
  } catch (error) {
    byId('message').textContent = `The server cannot be reached (${error.message}).`;
  }
  return null;
}

for (const button of document.querySelectorAll('[data-annotator]')) {
  button.addEventListener('click', async () => {
    const body = {annotator: Number(button.dataset.annotator), active: button.dataset.active === 'true'};
    if (await send('/api/active', body)) location.reload();
  });
}
byId('refresh').addEventListener('click', () => location.reload());
byId('leave').addEventListener('click', async () => {
  if (await send('/api/leave', {})) location.assign('/');
});
