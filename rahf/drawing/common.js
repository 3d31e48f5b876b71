'use strict';

// What Python wrote. Prompts are only ever set as text, never as HTML.
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

/** A word of a prompt, the more coloured the likelier it is misaligned. */
function wordSpan(text, p) {
  const span = element('span', {className: 'word'}, text);
  if (p !== null) {
    span.style.background = `rgb(255 140 40 / ${60 * p}%)`;
    span.title = `p ${p.toFixed(2)}`;
  }
  return span;
}

/** A bar that is filled from 0 to a value in [0, 1]. */
function track(className, value) {
  const filled = element('div', {className});
  filled.style.width = `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;
  return element('div', {className: 'track'}, filled);
}

/** Shows a map over the picture, in grey the more the map is seen; null is no map. */
function fade(picture, canvas, share) {
  picture.style.filter = share === null ? '' : `grayscale(${share}) contrast(${1 - share / 3})`;
  canvas.style.opacity = share ?? 0;
}

/**
 * Draws a grey picture in the colours of maps; `wanted` says whether it is, by then.
 * Returns the highest value, 0 to 255, or null if it was not.
 */
async function drawMap(canvas, source, wanted) {
  const image = new Image();
  image.src = source;
  await image.decode();
  if (!wanted()) return null;
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  let highest = 0;
  for (let i = 0; i < pixels.data.length; i += 4) {
    highest = Math.max(highest, pixels.data[i]);
    pixels.data.set(data.colours[pixels.data[i]], i);
  }
  context.putImageData(pixels, 0, 0);
  return highest;
}

function drawScale() {
  const context = byId('scale').getContext('2d');
  context.putImageData(new ImageData(Uint8ClampedArray.from(data.colours.flat()), 256, 1), 0, 0);
}

/** Chooses the next of some radio buttons. */
function chooseNext(radios) {
  const options = [...radios];
  options[(options.findIndex((radio) => radio.checked) + 1) % options.length].checked = true;
}

/** What keys do to the map: m takes the next, 0 to 9 set its opacity. */
function onMapKey(key) {
  const {map, opacity} = byId('controls').elements;
  if (key === 'm') chooseNext(map);
  else if (/^[0-9]$/.test(key)) opacity.value = key === '9' ? 100 : 11 * Number(key);
  else return;
  drawHeat();
}

// `drawHeat` is each page's own.
byId('controls').addEventListener('input', drawHeat);
byId('picture').addEventListener('load', ({target}) => {
  const ratio = target.naturalWidth / target.naturalHeight;
  target.parentElement.style.setProperty('--ratio', ratio);
});
drawScale();
