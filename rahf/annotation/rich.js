const NS = 'http://www.w3.org/2000/svg';
const POINTS = ['implausibility_points', 'misalignment_points'];
const LISTS = [...POINTS, 'misaligned_words'];
const EMPTY = {implausibility_points: [], misalignment_points: [], misaligned_words: [], scores: {}, nothing: []};
const STEP = 0.02; // How far an arrow key moves the cursor; a fifth of it with Shift.
let answer = null;
let [past, future] = [[], []]; // Answers before changes, and those that were undone.
let cursor = null; // [x, y] for the keyboard, null while the mouse is used.
let zoom = 1;
let dragged = null; // {name, index, moved} while a mark is moved.

const kind = {
  show(shown) {
    // The answer of a skipped image has no fields.
    answer = structuredClone({...EMPTY, ...shown.draft});
    [past, future, cursor] = [[], [], null];
    byId('picture').src = imageUrl(0);
    byId('prompt').replaceChildren(...promptParts(shown.pieces));
    setZoom(1);
    draw();
  },
  value: () => answer,
  showPrediction,
  problem() {
    const open = LISTS.filter((name) => !answer[name].length && !answer.nothing.includes(name)).map((name) => texts[`missing_${name}`]);
    const unrated = scores().filter((name) => !answer.scores[name]).map((name) => texts[name]);
    return open.length + unrated.length ? `${texts.missing} ${[...open, ...unrated].join('; ')}.` : '';
  },
  key(event) {
    const {key} = event;
    if (document.activeElement === byId('viewport') && onCursorKey(event)) return true;
    const actions = {
      a: () => setKind(POINTS[0]), m: () => setKind(POINTS[1]), z: undo, y: redo, n: nothingElse,
      i: () => byId('viewport').focus(), w: focusWord, '+': () => setZoom(zoom * 1.5), '-': () => setZoom(zoom / 1.5), 0: () => setZoom(1),
    };
    if (/^[1-5]$/.test(key)) rate(Number(key));
    else if (actions[key.toLowerCase()]) actions[key.toLowerCase()]();
    else return false;
    return true;
  },
};

function wordButton(text, number) {
  const button = element('button', {className: 'word', type: 'button'}, text);
  button.dataset.word = number;
  button.addEventListener('click', () => change(() => toggle(answer.misaligned_words, number)));
  return button;
}

/** Returns white space, and spans of a word with its punctuation, which lines keep whole. */
function promptParts(pieces) {
  const parts = [];
  let span = null;
  const split = pieces.flatMap(([text, number]) => (
    number === null ? text.match(/\s+|\S+/g).map((part) => [part, null]) : [[text, number]]));
  for (const [text, number] of split) {
    if (number === null && !text.trim()) {
      parts.push(text);
      span = null;
      continue;
    }
    if (!span || (number !== null && span.querySelector('button'))) parts.push(span = element('span', {className: 'whole'}));
    span.append(number === null ? text : wordButton(text, number));
  }
  return parts;
}

/** Shows what a model says about the image that was just answered. */
function showPrediction(found) {
  const dialog = byId('model'), own = answer.scores;
  const image = dialog.querySelector('img');
  image.onload = () => drawDiscs(dialog.querySelector('svg'), image, found, found.radius);
  image.src = `/image/${found.item}/0`;
  dialog.querySelector('.text').replaceChildren(...found.pieces.map(([text, number]) => (
    found.misaligned_words.includes(number) ? element('mark', {}, text) : text)));
  dialog.querySelector('tbody').replaceChildren(...Object.entries(found.scores).map(([name, score]) => element('tr', {},
    element('th', {scope: 'row'}, texts[name]), element('td', {}, String(own[name] ?? '–')), element('td', {}, score.toFixed(1)))));
  openAtTop(dialog);
}

const scores = () => [...document.querySelectorAll('[data-score]')].map((one) => one.dataset.score);
const currentKind = () => document.querySelector('[name=kind]:checked').value;
const setKind = (name) => { document.querySelector(`[name=kind][value=${name}]`).checked = true; };

/** Changes the answer so that the change can be undone, and keeps it as a draft. */
function change(act) {
  past.push(structuredClone(answer));
  future = [];
  act();
  // What is marked is not nothing.
  answer.nothing = answer.nothing.filter((name) => !answer[name].length);
  draw();
  changed();
}

function travel(from, to) {
  if (!from.length) return;
  to.push(answer);
  answer = from.pop();
  draw();
  changed();
}
const undo = () => travel(past, future);
const redo = () => travel(future, past);

function toggle(list, value) {
  const index = list.indexOf(value);
  if (index < 0) list.push(value);
  else list.splice(index, 1);
}

function nothingElse() {
  change(() => { answer.nothing = LISTS.filter((name) => !answer[name].length); });
}

/** Rates the scale that has the focus, or else the first without a rating. */
function rate(level) {
  const focused = document.activeElement?.closest('[data-score]')?.dataset.score;
  const name = focused ?? scores().find((one) => !answer.scores[one]) ?? scores().at(-1);
  change(() => { answer.scores[name] = level; });
  const next = scores().find((one) => !answer.scores[one]);
  if (focused && next) document.querySelector(`[name=${next}]`).focus();
  speak(`${texts[name]}: ${level}`);
}

function focusWord() {
  const words = [...document.querySelectorAll('.word')];
  words[(words.indexOf(document.activeElement) + 1) % words.length].focus();
}

const speak = (text) => { byId('spoken').textContent = text; };

/** Returns the mark whose centre is within a third of the radius, the nearest first. */
function markAt([x, y]) {
  const {naturalWidth: w, naturalHeight: h} = byId('picture');
  let best = null;
  for (const name of POINTS) {
    for (const [index, [px, py]] of answer[name].entries()) {
      const distance = Math.hypot((px - x) * w, (py - y) * h);
      if (distance <= h * task.radius / 3 && !(best?.distance <= distance)) best = {name, index, distance};
    }
  }
  return best;
}

function addOrRemove(point) {
  const found = markAt(point);
  const place = point.map((c) => `${Math.round(100 * c)} %`).join(', ');
  change(() => {
    if (found) answer[found.name].splice(found.index, 1);
    else answer[currentKind()].push(point);
  });
  speak(`${found ? texts.mark_removed : texts[`added_${currentKind()}`]} ${place}`);
}

function onCursorKey(event) {
  const moves = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  const move = moves[event.key];
  cursor ??= move || event.key === ' ' || event.key === 'Enter' ? [0.5, 0.5] : null;
  if (move) {
    const step = event.shiftKey ? STEP / 5 : STEP;
    cursor = cursor.map((c, axis) => Math.min(Math.max(c + step * move[axis], 0), 1));
    draw();
    document.querySelector('#marks .cursor').scrollIntoView({block: 'nearest', inline: 'nearest'});
    speak(cursor.map((c) => `${Math.round(100 * c)} %`).join(', '));
  } else if (event.key === ' ' || event.key === 'Enter') {
    addOrRemove(cursor);
  } else {
    return false;
  }
  return true;
}

function shape(tag, attributes) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function drawDiscs(svg, image, marked, radius) {
  const {naturalWidth: w, naturalHeight: h} = image;
  svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
  svg.replaceChildren(...POINTS.flatMap((name) => marked[name].flatMap(([x, y]) => [
    shape('circle', {class: 'casing', cx: x * w, cy: y * h, r: h * radius}),
    shape('circle', {class: `disc ${name}`, cx: x * w, cy: y * h, r: h * radius}),
    shape('circle', {class: `centre ${name}`, cx: x * w, cy: y * h, r: h * radius / 8}),
  ])));
}

function drawMarks() {
  const {naturalWidth: w, naturalHeight: h} = byId('picture');
  if (!w) return;
  drawDiscs(byId('marks'), byId('picture'), answer, task.radius);
  if (cursor) {
    const [x, y, r] = [cursor[0] * w, cursor[1] * h, h * task.radius];
    byId('marks').append(shape('path', {class: `cursor ${currentKind()}`, d: `M${x - r} ${y}H${x + r}M${x} ${y - r}V${y + r}M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`}));
  }
}

function draw() {
  drawMarks();
  for (const word of document.querySelectorAll('.word')) {
    word.setAttribute('aria-pressed', String(answer.misaligned_words.includes(Number(word.dataset.word))));
  }
  for (const box of document.querySelectorAll('#nothing input')) {
    box.checked = answer.nothing.includes(box.value);
    box.disabled = answer[box.value].length > 0;
  }
  for (const radio of document.querySelectorAll('[data-score] input')) {
    radio.checked = answer.scores[radio.name] === Number(radio.value);
  }
  byId('undo').disabled = !past.length;
  byId('redo').disabled = !future.length;
}

/** Returns where a pointer is, in fractions of the image. */
function place(event) {
  const box = byId('picture').getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((c) => Math.min(Math.max(c, 0), 1));
}

function setZoom(value) {
  zoom = Math.min(Math.max(value, 1), 8);
  byId('zoom').textContent = `${Math.round(100 * zoom)} %`;
  fit();
}

/** Makes the image as large as its place allows, times the zoom; keeps its middle. */
function fit() {
  const view = byId('viewport'), {naturalWidth: w, naturalHeight: h} = byId('picture');
  if (!w) return;
  const middle = [(view.scrollLeft + view.clientWidth / 2) / view.scrollWidth, (view.scrollTop + view.clientHeight / 2) / view.scrollHeight];
  const most = Math.max(innerHeight - view.getBoundingClientRect().top - scrollY - 24, 0.45 * innerHeight);
  const width = Math.min(view.clientWidth, most * w / h);
  view.style.maxHeight = `${most}px`;
  byId('sheet').style.width = `${width * zoom}px`;
  view.scrollTo(middle[0] * view.scrollWidth - view.clientWidth / 2, middle[1] * view.scrollHeight - view.clientHeight / 2);
}

byId('picture').addEventListener('load', () => { fit(); drawMarks(); });
byId('picture').addEventListener('error', () => showMessage(texts.no_image));
addEventListener('resize', fit);
byId('sheet').addEventListener('pointerdown', (event) => {
  if (event.button || !answer) return;
  cursor = null;
  dragged = {...(markAt(place(event)) ?? {}), from: [event.clientX, event.clientY], before: structuredClone(answer), moved: false};
});
byId('sheet').addEventListener('pointermove', (event) => {
  if (!dragged || dragged.name === undefined || event.pointerType === 'touch') return;
  if (Math.hypot(event.clientX - dragged.from[0], event.clientY - dragged.from[1]) > 4) dragged.moved = true;
  if (!dragged.moved) return;
  answer[dragged.name][dragged.index] = place(event);
  drawMarks();
});
// A finger that scrolls ends in pointercancel and without a click.
byId('sheet').addEventListener('pointercancel', () => { dragged = null; });
byId('sheet').addEventListener('click', (event) => {
  const mine = dragged;
  dragged = null;
  if (!mine?.moved) return addOrRemove(place(event));
  past.push(mine.before);
  future = [];
  draw();
  changed();
});
byId('viewport').addEventListener('wheel', (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  setZoom(zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
}, {passive: false});
byId('undo').addEventListener('click', undo);
byId('redo').addEventListener('click', redo);
byId('larger').addEventListener('click', () => setZoom(zoom * 1.5));
byId('smaller').addEventListener('click', () => setZoom(zoom / 1.5));
for (const box of document.querySelectorAll('#nothing input')) {
  box.addEventListener('change', () => change(() => toggle(answer.nothing, box.value)));
}
for (const radio of document.querySelectorAll('[data-score] input')) {
  radio.addEventListener('change', () => change(() => { answer.scores[radio.name] = Number(radio.value); }));
}
