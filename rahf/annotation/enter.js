// An invitation follows the #, so that it is in no server's log.
const token = location.hash.slice(1);

async function enter(body) {
  let response;
  try {
    response = await fetch('/api/enter', {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body),
    });
  } catch {
    byId('message').textContent = data.texts.unreachable;
    return;
  }
  const answer = await response.json();
  if (response.ok) location.replace(answer.next + location.search);
  else byId('message').textContent = sentence(answer.detail);
}

if (!data.by_name && token) {
  byId('wait').hidden = true;
  byId('join').hidden = false;
  byId('join').focus();
}
byId('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  if (data.by_name) enter({name: byId('name').value});
  else if (token) enter({token});
});
