let image = null; // The chosen file.
let answer = null; // The service's answer for it.
let latest = 0; // Number of the latest request; answers to older ones are ignored.

function showMessage(text, problem = false) {
  byId('message').textContent = text;
  byId('message').classList.toggle('problem', problem);
}

function clearAnswer() {
  answer = null;
  latest += 1;
  byId('result').hidden = byId('maps').hidden = byId('heat').hidden = true;
  fade(byId('picture'), byId('heat'), null);
}

function choose(file) {
  if (!file) return;
  image = file;
  clearAnswer();
  URL.revokeObjectURL(byId('picture').src);
  byId('picture').src = URL.createObjectURL(file);
  byId('picture').parentElement.hidden = false;
  byId('hint').textContent = `${file.name}; drop or choose another to replace it`;
  showMessage('');
}

async function ask() {
  const prompt = byId('text').value;
  if (!image) return showMessage('Choose an image first.', true);
  if (!prompt.trim()) return showMessage('Type the prompt the image was made from.', true);
  if (image.size > data.limit) return showMessage('The file is larger than the limit.', true);
  clearAnswer();
  const mine = latest;
  showMessage('Scoring …');
  const form = new FormData();
  form.append('image', image);
  form.append('prompt', prompt);
  let found, problem;
  try {
    const response = await fetch('score', {method: 'POST', body: form});
    if (response.ok) found = await response.json();
    else problem = await reason(response);
  } catch (error) {
    problem = `Cannot reach the service (${error.message}).`;
  }
  if (mine !== latest) return;
  if (problem) return showMessage(problem, true);
  answer = found;
  show();
}

/** Returns the reason for a failure; errors of proxies and bugs are not JSON. */
async function reason(response) {
  const failed = `The service failed (status ${response.status}).`;
  return response.json().then(({detail}) => detail ?? failed, () => failed);
}

function show() {
  showMessage(answer.truncated ? 'The prompt is too long for the model, so its last words were not judged.' : '');
  byId('scores').replaceChildren(...Object.entries(answer.scores).map(([name, value]) => {
    const {meaning, range: [low, high]} = data.scores[name];
    return element('div', {className: 'score'}, element('span', {}, name),
      track('value', (value - low) / (high - low)),
      element('span', {className: 'value'}, number(value)),
      element('small', {}, meaning));
  }));
  byId('result').hidden = false;
  // Not every model judges words or makes maps.
  byId('words').hidden = !answer.keywords;
  if (answer.keywords) byId('prompt').replaceChildren(...markedPrompt());
  byId('maps').hidden = byId('heat').hidden = !answer.heatmaps;
  if (answer.heatmaps) drawHeat();
}

/** Returns the prompt with its words marked; other text may be in between. */
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
  const isCurrent = () => answer === mine && map.value === name;
  const highest = await drawMap(canvas, source, isCurrent);
  if (highest === null) return;
  byId('peak').textContent = highest ? `max ${number(highest / 255)}` : 'nothing';
  canvas.dataset.drawn = name;
  canvas.answer = mine;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !answer?.heatmaps) return;
  if (!event.target.matches('textarea')) onMapKey(event.key);
}

function onDrop(event) {
  event.preventDefault();
  byId('drop').classList.remove('over');
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
  else showMessage('Please drop a file.', true);
}

byId('file').addEventListener('change', ({target}) => choose(target.files[0]));
byId('picture').addEventListener('error', () => {
  byId('picture').parentElement.hidden = true;
  showMessage('The browser cannot show this file; it may not be an image.', true);
});
// On the whole page: otherwise the browser would open the dropped file.
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
