/** Sets the opacity of the map, and greys the picture accordingly; null hides the map. */
function fade(picture, canvas, opacity) {
  picture.style.filter = opacity === null ? '' : `grayscale(${opacity}) contrast(${1 - opacity / 3})`;
  canvas.style.opacity = opacity ?? 0;
}

/**
 * Draws a grey picture in the colours of maps, if `isCurrent()` once it has loaded.
 * Returns the highest value, 0 to 255, or null if it was not drawn.
 */
async function drawMap(canvas, source, isCurrent) {
  const image = new Image();
  image.src = source;
  await image.decode();
  if (!isCurrent()) return null;
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

/** Selects the next radio button of a group. */
function chooseNext(radios) {
  const options = [...radios];
  options[(options.findIndex((radio) => radio.checked) + 1) % options.length].checked = true;
}

/** Handles keys: m switches the map, 0 to 9 set its opacity. */
function onMapKey(key) {
  const {map, opacity} = byId('controls').elements;
  if (key === 'm') chooseNext(map);
  else if (/^[0-9]$/.test(key)) opacity.value = key === '9' ? 100 : 11 * Number(key);
  else return;
  drawHeat();
}

// Each page defines its own `drawHeat`.
byId('controls').addEventListener('input', drawHeat);
byId('picture').addEventListener('load', ({target}) => {
  const ratio = target.naturalWidth / target.naturalHeight;
  target.parentElement.style.setProperty('--ratio', ratio);
});
drawScale();
