const samples = data.samples;

// `value` is shown and sorted by; undefined values always come last.
const COLUMNS = [
  {title: '', value: null},
  {title: 'prompt', value: (s) => s.words.join('')},
  {title: 'score error', value: (s) => s.error},
  {title: 'implausibility CC', value: (s) => s.metrics.implausibility?.cc ?? null},
  {title: 'misalignment CC', value: (s) => s.metrics.misalignment?.cc ?? null},
  {title: 'misaligned words', value: misalignedWords, digits: 0},
  {title: 'keyword F1', value: (s) => s.f1},
];

let shown = []; // Indices of the samples that pass the filters, in order.
let order = {column: null, down: true};
let open = null; // Position in `shown` of the sample in the viewer.

function misalignedWords(sample) {
  return sample.truth && sample.truth.filter((label) => label === 0).length;
}

function picture(sample) {
  return 'data:image/webp;base64,' + sample.image;
}

/** Returns the prompt with each word's annotation and prediction. */
function markedPrompt(sample) {
  return sample.words.map((text, i) => {
    if (i % 2 === 0) return text; // Text between words.
    const word = (i - 1) / 2;
    const span = wordSpan(text, sample.p && sample.p[word]);
    if (sample.truth && sample.truth[word] === 0) span.classList.add('true');
    if (sample.marked[word] === 0) span.classList.add('marked');
    return span;
  });
}

function tableRow(sample, index) {
  const image = element('img', {src: picture(sample), alt: '', loading: 'lazy'});
  const button = element('button', {type: 'button'}, ...markedPrompt(sample));
  button.append(element('span', {className: 'uid'}, sample.uid));
  const cells = COLUMNS.slice(2).map((column) =>
    element('td', {}, number(column.value(sample), column.digits)));
  const row = element(
    'tr', {}, element('td', {}, image), element('td', {}, button), ...cells);
  row.addEventListener('click', () => show(shown.indexOf(index)));
  return row;
}

const rows = samples.map(tableRow);

function drawHead() {
  const heads = COLUMNS.map((column, i) => {
    if (!column.value) return element('th', {scope: 'col'});
    const sorted = order.column === i;
    const arrow = sorted ? (order.down ? ' ↓' : ' ↑') : '';
    const button = element('button', {type: 'button'}, column.title + arrow);
    button.addEventListener('click', () => {
      order = {column: i, down: sorted ? !order.down : i > 1};
      update();
      byId('samples').querySelectorAll('thead th')[i].querySelector('button').focus();
    });
    const head = element('th', {scope: 'col'}, button);
    if (sorted) head.ariaSort = order.down ? 'descending' : 'ascending';
    return head;
  });
  byId('samples').querySelector('thead tr').replaceChildren(...heads);
}

function passes(sample, filters) {
  const text = filters.text.value.trim().toLowerCase();
  const found = (sample.uid + ' ' + sample.words.join('')).toLowerCase();
  const within = (field, value, sign) => {
    const limit = field.valueAsNumber;
    return Number.isNaN(limit) || (value !== null && sign * (value - limit) >= 0);
  };
  return found.includes(text)
    && within(filters.error, sample.error, 1)
    && within(filters.implausibility, sample.metrics.implausibility?.cc ?? null, -1)
    && within(filters.misalignment, sample.metrics.misalignment?.cc ?? null, -1)
    && within(filters.words, misalignedWords(sample), 1);
}

function compare(a, b) {
  const {value} = COLUMNS[order.column];
  const [x, y] = [value(samples[a]), value(samples[b])];
  if (x === null || y === null) return (x === null) - (y === null) || a - b;
  const sign = typeof x === 'string' ? x.localeCompare(y) : x - y;
  return (order.down ? -sign : sign) || a - b;
}

/** Filters and sorts the table. */
function update() {
  const filters = byId('filters').elements;
  shown = samples.flatMap((sample, i) => (passes(sample, filters) ? [i] : []));
  if (order.column !== null) shown.sort(compare);
  byId('samples').querySelector('tbody').replaceChildren(...shown.map((i) => rows[i]));
  byId('shown').textContent = `${shown.length} of ${samples.length} samples`;
  drawHead();
}

/** Opens the viewer on the sample at a position in `shown`. */
function show(position) {
  if (position < 0 || position >= shown.length) return;
  open = position;
  const sample = samples[shown[position]];
  byId('name').textContent = `${sample.uid}, ${position + 1} of ${shown.length}`;
  // Not `disabled`, since the button would lose the focus.
  byId('previous').ariaDisabled = position === 0;
  byId('next').ariaDisabled = position === shown.length - 1;
  byId('picture').src = picture(sample);
  byId('prompt').replaceChildren(...markedPrompt(sample));
  byId('scores').replaceChildren(
    ...data.scores.map((name, i) => scoreBars(name, sample.annotated[i], sample.predicted[i])));
  byId('values').replaceChildren(...valueRows(sample));
  drawHeat();
  if (!byId('viewer').open) byId('viewer').showModal();
}

function scoreBars(name, annotated, predicted) {
  const bar = (side, value) => {
    const who = element('span', {className: 'unseen'}, side);
    return [
      track(side, value),
      element('span', {className: side}, who, ` ${number(value)}`),
    ];
  };
  return element('div', {className: 'score'}, element('span', {}, name),
    ...bar('annotated', annotated), ...bar('predicted', predicted));
}

function valueRows(sample) {
  const heads = ['', ...data.maps].map((text) => element('th', {}, text));
  const values = Object.entries(data.metrics).map(([key, title]) =>
    element('tr', {}, element('td', {}, title), ...data.maps.map((map) =>
      element('td', {}, number(sample.metrics[map]?.[key] ?? null, 3)))));
  return [element('tr', {}, ...heads), ...values];
}

/** Draws the selected map of the open sample over its image. */
async function drawHeat() {
  const sample = samples[shown[open]];
  const {map, side, opacity} = byId('controls').elements;
  const encoded = sample.heat[map.value][side.value === 'annotated' ? 0 : 1];
  const canvas = byId('heat');
  canvas.hidden = byId('scale').parentElement.hidden = encoded === null;
  byId('missing').hidden = encoded !== null;
  byId('missing').textContent = `not ${side.value}`;
  fade(byId('picture'), canvas, encoded && opacity.value / 100);
  if (encoded === null) return;
  // Another sample or map may be selected meanwhile.
  const isCurrent = () => open !== null && samples[shown[open]] === sample
    && sample.heat[map.value][side.value === 'annotated' ? 0 : 1] === encoded;
  const source = 'data:image/webp;base64,' + encoded.picture;
  if (await drawMap(canvas, source, isCurrent) === null) return;
  byId('peak').textContent = encoded.peak ? `max ${number(encoded.peak)}` : 'nothing';
  canvas.dataset.drawn = `${sample.uid} ${map.value} ${side.value}`;
}

function onKey(event) {
  if (open === null || event.ctrlKey || event.metaKey || event.altKey) return;
  // Arrow keys move a focused slider or radio button instead.
  const arrows = !event.target.matches('input');
  if (event.key === 'ArrowLeft' && arrows) show(open - 1);
  else if (event.key === 'ArrowRight' && arrows) show(open + 1);
  else if (event.key === 't') {
    chooseNext(byId('controls').elements.side);
    drawHeat();
  } else onMapKey(event.key);
}

byId('filters').addEventListener('input', update);
byId('filters').addEventListener('submit', (event) => event.preventDefault());
byId('all').addEventListener('click', () => {
  byId('filters').reset();
  update();
});
byId('previous').addEventListener('click', () => show(open - 1));
byId('next').addEventListener('click', () => show(open + 1));
byId('close').addEventListener('click', () => byId('viewer').close());
document.addEventListener('keydown', onKey);
// After a click on a control, arrow keys should change the sample, not the control.
byId('controls').addEventListener('pointerup', () => document.activeElement.blur());
byId('viewer').addEventListener('close', () => {
  rows[shown[open]].querySelector('button').focus();
  open = null;
});
update();
