'use strict';

// The data from Python. Prompts are only ever set as text, never as HTML.
const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function number(value, digits = 2) {
  return value === null ? '–' : value.toFixed(digits).replace('-', '−');
}

/** Returns a word, coloured by its probability of misalignment. */
function wordSpan(text, p) {
  const span = element('span', {className: 'word'}, text);
  if (p !== null) {
    span.style.background = `rgb(255 140 40 / ${60 * p}%)`;
    span.title = `p ${p.toFixed(2)}`;
  }
  return span;
}

/** Returns a bar that is filled up to a value in [0, 1]. */
function track(className, value) {
  const filled = element('div', {className});
  filled.style.width = `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;
  return element('div', {className: 'track'}, filled);
}
