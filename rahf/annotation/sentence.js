/** Returns a server's message, which begins in the middle of a sentence, as one. */
function sentence(detail) {
  const text = String(detail);
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.');
}
