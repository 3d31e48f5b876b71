// The frame of all tasks: loads them, keeps drafts, stores answers. Each task's own
// script defines `kind` with show(task), value(), problem() and key(event).
const texts = data.texts;
const RETRY = 2000; // milliseconds
let task = null; // What is shown.
let revised = null; // The number of the stored answer that is being changed.
let answerKey = ''; // The same for each attempt to store an answer.
let busy = false;
let draftTimer = 0;
let [worked, since] = [0, Date.now()]; // Milliseconds of work, and since when.

function showMessage(text) {
  byId('message').textContent = text;
  byId('done-message').textContent = text;
}

/** Returns what the server answers; `failed` if it could not and may be asked again. */
async function call(path, body) {
  const options = body === undefined ? {} : {
    method: 'POST', body: JSON.stringify(body), keepalive: true,
    headers: {'Content-Type': 'application/json', 'X-CSRF-Token': data.csrf},
  };
  try {
    const response = await fetch(path, options);
    const found = await response.json();
    if (response.ok) return {found};
    if (response.status === 401) location.reload();
    const failed = response.status >= 500 || response.status === 429;
    return {failed, status: response.status, problem: sentence(found.detail ?? response.statusText)};
  } catch (error) {
    return {failed: true, status: 0, problem: texts.unreachable};
  }
}

function seconds() {
  return (worked + (document.hidden ? 0 : Date.now() - since)) / 1000;
}

/** Shows a task, null for none, or the latest answer with its number, to be changed. */
function display(shown) {
  task = shown;
  revised = shown?.answer ?? null;
  answerKey = crypto.randomUUID ? crypto.randomUUID() : [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, '0')).join('');
  [worked, since] = [0, Date.now()];
  byId('task').hidden = !task;
  byId('done').hidden = Boolean(task);
  byId('remark').hidden = !task?.flag;
  byId('remark').querySelector('input').value = task?.flag ?? '';
  byId('flag').setAttribute('aria-expanded', String(!byId('remark').hidden));
  byId('saved').textContent = '';
  showMessage(revised === null ? '' : texts[`${task.status === 'skipped' ? 'skipped' : 'changing'}_${data.task}`]);
  document.body.classList.toggle('revising', revised !== null);
  if (task) kind.show(task);
}

function showProgress({own, completed, wanted}) {
  byId('progress').max = Math.max(wanted, 1);
  byId('progress').value = completed;
  byId('count').textContent = texts[`count_${data.task}`].replace('{own}', own).replace('{completed}', completed).replace('{wanted}', wanted);
}

function follow(found) {
  if (found.prediction) kind.showPrediction(found.prediction);
  display(found.task);
  showProgress(found.progress);
}

async function load() {
  const {found, problem} = await call('/api/task');
  if (found) return follow(found);
  byId('task').hidden = false;
  showMessage(problem);
  setTimeout(load, RETRY);
}

/** Stores an answer, and tries again until the server has it or refuses it. */
async function store(status, value) {
  if (busy || !task) return;
  const problem = status === 'done' ? kind.problem(value) : '';
  if (problem) return showMessage(problem);
  busy = true;
  clearTimeout(draftTimer);
  document.body.classList.add('busy');
  const body = {
    lease: revised ?? task.lease, turn: task.turn, key: answerKey, value: status === 'done' ? value : null,
    status, flag: byId('remark').querySelector('input').value, seconds: seconds(),
  };
  let answer;
  while (true) {
    answer = await call(revised === null ? '/api/answer' : '/api/revise', body);
    if (!answer.failed) break;
    showMessage(`${texts.not_stored} ${answer.problem}`);
    await new Promise((done) => setTimeout(done, RETRY));
  }
  busy = false;
  document.body.classList.remove('busy');
  if (answer.found) return follow(answer.found);
  if (answer.status === 409) {
    await load();
  }
  showMessage(answer.problem);
}

/** Keeps the unfinished answer, a moment after the latest change. */
function changed() {
  showMessage('');
  if (revised !== null) return;
  clearTimeout(draftTimer);
  byId('saved').textContent = texts.saving;
  draftTimer = setTimeout(keepDraft, 500);
}

async function keepDraft() {
  clearTimeout(draftTimer);
  draftTimer = 0;
  const mine = task;
  const {found} = await call('/api/draft', {lease: task.lease, value: kind.value()});
  if (mine === task) byId('saved').textContent = found?.kept ? texts.saved : texts.not_saved;
}

async function back() {
  if (busy) return;
  if (revised !== null) return load();
  if (draftTimer) await keepDraft();
  const {found, problem} = await call('/api/last');
  if (!found) return showMessage(problem);
  if (!found.task) return showMessage(texts.nothing_before);
  // A choice can be changed, but a prompt that was left does not come again.
  if (data.task === 'prefer' && found.task.status === 'skipped') return showMessage(texts.skipped_prefer);
  display(found.task);
}

function flag() {
  const remark = byId('remark');
  remark.hidden = !remark.hidden;
  byId('flag').setAttribute('aria-expanded', String(!remark.hidden));
  if (!remark.hidden) remark.querySelector('input').focus();
}

function openAtTop(dialog) {
  dialog.showModal();
  dialog.scrollTop = 0; // The focus is on the button at the end.
}

function tour() {
  openAtTop(byId('tour'));
  localStorage.setItem(`rahf-tour-${data.task}`, 'seen');
}

function enlarge({src, alt}) {
  Object.assign(byId('large').querySelector('img'), {src, alt});
  byId('large').showModal();
}

const imageUrl = (number) => `/image/${task.item}/${number}`;

function onKey(event) {
  const typing = event.target.matches('input:not([type=radio], [type=checkbox]), select, textarea');
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (task && data.task === 'rich') store('done', kind.value());
    return;
  }
  if (typing) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  const actions = {b: back, s: () => store('skipped'), f: flag, '?': tour};
  const action = actions[event.key.toLowerCase()];
  if (action) action();
  else if (!task || !kind.key(event)) return;
  event.preventDefault();
}

document.addEventListener('keydown', onKey);
document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    worked += Date.now() - since;
    if (draftTimer) keepDraft();
  } else {
    since = Date.now();
  }
});
byId('submit')?.addEventListener('click', () => store('done', kind.value()));
byId('skip').addEventListener('click', () => store('skipped'));
byId('back').addEventListener('click', back);
byId('revisit').addEventListener('click', back);
byId('again').addEventListener('click', load);
byId('flag').addEventListener('click', flag);
byId('help').addEventListener('click', tour);
byId('leave').addEventListener('click', async () => {
  if (draftTimer) await keepDraft();
  await call('/api/leave', {});
  location.assign('/');
});
byId('language').addEventListener('change', async ({target}) => {
  if (draftTimer) await keepDraft();
  location.assign(`/?lang=${target.value}`);
});
// `kind` is defined by the next script.
addEventListener('DOMContentLoaded', () => {
  load();
  if (!localStorage.getItem(`rahf-tour-${data.task}`)) tour();
});
