let image = null; // The chosen file.
let answer = null; // The service's answer for it.
let asked = 0; // Counts requests, so that a late answer cannot replace a newer one.

function say(text, problem = false) {
  byId('message').textContent = text;
  byId('message').classList.toggle('problem', problem);
}

function forget() {
  answer = null;
  asked += 1;
  byId('result').hidden = byId('maps').hidden = byId('heat').hidden = true;
  fade(byId('picture'), byId('heat'), null);
}

function choose(file) {
  if (!file) return;
  image = file;
  forget();
  URL.revokeObjectURL(byId('picture').src);
  byId('picture').src = URL.createObjectURL(file);
  byId('picture').parentElement.hidden = false;
  byId('hint').textContent = `${file.name}; drop or choose another to replace it`;
  say('');
}

async function ask() {
  const prompt = byId('text').value;
  if (!image) return say('Choose an image first.', true);
  if (!prompt.trim()) return say('Type the prompt the image was made from.', true);
  if (image.size > data.limit) return say('The file is larger than the limit.', true);
  forget();
  const mine = asked;
  say('Scoring …');
  const form = new FormData();
  form.append('image', image);
  form.append('prompt', prompt);
  let found, problem;
  try {
    const response = await fetch('score', {method: 'POST', body: form});
    if (response.ok) found = await response.json();
    else problem = await reason(response);
  } catch (error) {
    problem = `The service does not answer (${error.message}).`;
  }
  if (mine !== asked) return;
  if (problem) return say(problem, true);
  answer = found;
  show();
}

/** Explains a failed request; errors from proxies and from bugs are not JSON. */
async function reason(response) {
  const failed = `The service failed (status ${response.status}).`;
  return response.json().then(({detail}) => detail ?? failed, () => failed);
}

function show() {
  say(answer.truncated ? 'The prompt is too long for the model; its last words were not judged.' : '');
  byId('scores').replaceChildren(...Object.entries(answer.scores).map(([name, value]) =>
    element('div', {className: 'score'}, element('span', {}, name), track('value', value),
      element('span', {className: 'value'}, number(value)),
      element('small', {}, data.scores[name]))));
  byId('prompt').replaceChildren(...markedPrompt());
  byId('result').hidden = byId('maps').hidden = byId('heat').hidden = false;
  drawHeat();
}

/** Returns the prompt with its words marked; between them is other text. */
function markedPrompt() {
  let end = 0;
  const pieces = answer.keywords.flatMap(({word, p_misaligned: p, misaligned}) => {
    const start = answer.prompt.indexOf(word, end);
    const between = answer.prompt.slice(end, start);
    end = start + word.length;
    const span = wordSpan(word, p);
    span.title = '';
    span.tabIndex = 0;
    span.dataset.p = p === null ? 'not judged' : `p ${p.toFixed(2)}`;
    span.classList.toggle('misaligned', misaligned);
    span.append(element('span', {className: 'unseen'}, ` ${span.dataset.p}`));
    return [between, span];
  });
  return [...pieces, answer.prompt.slice(end)];
}

/** Draws the chosen map over the image. */
async function drawHeat() {
  const {map, opacity} = byId('controls').elements;
  const [mine, name] = [answer, map.value];
  const canvas = byId('heat');
  byId('meaning').textContent = data.maps[name];
  fade(byId('picture'), canvas, opacity.value / 100);
  if (canvas.dataset.drawn === name && canvas.answer === mine) return;
  const source = 'data:image/png;base64,' + mine.heatmaps[name];
  const wanted = () => answer === mine && map.value === name;
  const highest = await drawMap(canvas, source, wanted);
  if (highest === null) return;
  byId('peak').textContent = highest ? `max ${number(highest / 255)}` : 'nothing';
  canvas.dataset.drawn = name;
  canvas.answer = mine;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !answer) return;
  if (!event.target.matches('textarea')) onMapKey(event.key);
}

function onDrop(event) {
  event.preventDefault();
  byId('drop').classList.remove('over');
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  else say('That was not a file.', true);
}

byId('file').addEventListener('change', ({target}) => choose(target.files[0]));
byId('picture').addEventListener('error', () => {
  byId('picture').parentElement.hidden = true;
  say('The browser cannot show this file; it may not be an image.', true);
});
// On the whole page: otherwise the browser would leave the page to open the file.
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  byId('drop').classList.add('over');
});
document.addEventListener('dragleave', () => byId('drop').classList.remove('over'));
document.addEventListener('drop', onDrop);
document.addEventListener('paste', ({clipboardData}) => choose(clipboardData.files[0]));
document.addEventListener('keydown', onKey);
byId('ask').addEventListener('submit', (event) => {
  event.preventDefault();
  ask();
});
byId('text').addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ask();
});
