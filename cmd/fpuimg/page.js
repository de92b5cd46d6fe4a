'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const byId = id => document.getElementById(id);

// make returns an element with text, or with other elements in it.
function make(name, attributes, ...content) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...content);
  return e;
}

const table = byId('matrix');
const body = make('tbody', {role: 'rowgroup'});
let sorted = {column: NaN, down: false};
// The roles are those that rows and cells have by themselves where they are laid out as such.
const cells = data.results.map(r => {
  const kind = data.kinds[r.kind];
  return make('td', {role: 'gridcell', class: kind.colour}, kind.word + (r.tag && ' ' + r.tag));
});
const rows = data.images.map((image, i) => {
  const tr = make('tr', {role: 'row'}, make('th', {role: 'rowheader', title: image.path}, make('bdi', {}, image.path)), ...image.cells.map(r => cells[r].cloneNode(true)));
  tr.dataset.image = i;
  return {tr, image, i};
});

const heads = [{name: 'Image', title: ''}].concat(data.hosts).map((host, column) => {
  const button = make('button', {type: 'button', title: host.title}, host.name);
  button.addEventListener('click', () => sort(column - 1));
  return make('th', {role: 'columnheader', 'aria-sort': 'none'}, button);
});
table.append(make('thead', {role: 'rowgroup'}, make('tr', {role: 'row'}, ...heads)), body);

// sort orders the rows by name, column -1, or by what becomes of them on a machine, the
// worst first; again, the other way round.
function sort(column) {
  sorted = {column, down: sorted.column === column && !sorted.down};
  const key = row => column < 0 ? 0 : -data.results[row.image.cells[column]].kind;
  const collator = new Intl.Collator('en', {numeric: true});
  const names = (a, b) => collator.compare(a.image.path, b.image.path) || a.i - b.i;
  const sign = sorted.down ? -1 : 1;
  rows.sort((a, b) => sign * (key(a) - key(b) || (column < 0 ? names(a, b) : 0)) || names(a, b));
  heads.forEach((th, i) => th.setAttribute('aria-sort', i - 1 !== column ? 'none' : sorted.down ? 'descending' : 'ascending'));
  for (const row of rows) row.tr.className = '';
  body.append(...rows.map(row => row.tr));
  settle();
}

// settle lays out the rows that are not on the screen, a few whenever nothing else
// happens: screen readers may not be told of others.
let settling = 0;
function settle() {
  const me = ++settling;
  const idle = window.requestIdleCallback || (f => setTimeout(f, 20));
  const some = from => {
    if (me !== settling) return;
    for (const row of rows.slice(from, from + 10)) row.tr.className = 'settled';
    if (from + 10 < rows.length) idle(() => some(from + 10));
  };
  idle(() => some(0));
}

const picked = data.kinds.map((kind, n) => {
  const box = make('input', {type: 'checkbox', checked: '', value: n});
  box.addEventListener('change', filter);
  if (data.results.some(r => r.kind === n)) byId('kinds').append(make('label', {}, box, ' ' + kind.word));
  return box;
});

// filter shows the images and machines whose names have a text, and rows that have one
// of the picked kinds on a machine that is shown.
function filter() {
  const has = (id, name) => name.toLowerCase().includes(byId(id).value.trim().toLowerCase());
  const on = data.hosts.map(host => has('host-filter', host.name));
  let shown = 0;
  for (const row of rows) {
    const show = has('image-filter', row.image.path) && row.image.cells.some((r, j) => on[j] && picked[data.results[r].kind].checked);
    row.tr.hidden = !show;
    shown += show;
  }
  on.forEach((shown, j) => {
    if (heads[j + 1].hidden === !shown) return;
    heads[j + 1].hidden = !shown;
    for (const row of rows) row.tr.cells[j + 1].hidden = !shown;
  });
  table.style.setProperty('--columns', on.filter(Boolean).length);
  byId('count').textContent = `${shown} of ${rows.length} images, ${on.filter(Boolean).length} of ${data.hosts.length} machines`;
  rove();
}

// rove makes one cell the one that Tab leads to.
let current;
function rove(to) {
  if (!to && (!current || current.hidden || current.parentNode.hidden)) {
    const row = [...body.rows].find(tr => !tr.hidden);
    to = row && [...row.cells].slice(1).find(td => !td.hidden);
  }
  if (!to) return;
  if (current) current.removeAttribute('tabindex');
  current = to;
  current.tabIndex = 0;
}

table.addEventListener('keydown', event => {
  const td = event.target.closest('td');
  if (!td) return;
  const step = (e, way) => {
    do e = e && e[way]; while (e && e.hidden);
    return e;
  };
  let to;
  switch (event.key) {
  case 'ArrowRight': to = step(td, 'nextElementSibling'); break;
  case 'ArrowLeft': to = step(td, 'previousElementSibling'); break;
  case 'ArrowDown': to = step(td.parentNode, 'nextElementSibling')?.cells[td.cellIndex]; break;
  case 'ArrowUp': to = step(td.parentNode, 'previousElementSibling')?.cells[td.cellIndex]; break;
  case 'Home': to = [...td.parentNode.cells].slice(1).find(c => !c.hidden); break;
  case 'End': to = [...td.parentNode.cells].findLast(c => !c.hidden); break;
  case 'Enter': case ' ': open(td); break;
  default: return;
  }
  event.preventDefault();
  if (to && to.tagName === 'TD') {
    rove(to);
    to.focus();
  }
});
table.addEventListener('click', event => {
  const td = event.target.closest('td');
  if (td) {
    rove(td);
    open(td);
  }
});

// open tells all about a cell.
function open(td) {
  const j = td.cellIndex - 1;
  const image = data.images[td.parentNode.dataset.image], host = data.hosts[j];
  const result = data.results[image.cells[j]];
  byId('details-title').textContent = `${image.path} on ${host.name}: ${result.verdict}`;
  const parts = [make('p', {}, data.kinds[result.kind].meaning + (result.criu ? `. ${result.criu}` : '.'))];
  if (image.tasks) parts.push(make('p', {}, 'Tasks: ' + image.tasks));
  if (image.error) parts.push(make('pre', {}, image.error));
  if (result.lost.length) parts.push(make('p', {}, 'Lost: ' + result.lost.join('; ')));
  for (const n of result.findings) {
    const f = data.findings[n];
    const a = make('article', {}, make('h3', {}, `${f.severity} ${f.rule}: ${f.where}`), make('p', {}, f.reason));
    if (f.hint) a.append(make('p', {}, 'What helps: ' + f.hint));
    if (f.command) a.append(make('pre', {tabindex: '0'}, f.command));
    parts.push(a);
  }
  parts.push(...result.more.map(line => make('p', {}, line)));
  byId('details-body').replaceChildren(...parts);
  byId('details').showModal();
}
byId('details').addEventListener('close', () => current && current.focus());
byId('details').addEventListener('click', event => event.target === byId('details') && byId('details').close());

byId('controls').addEventListener('submit', event => event.preventDefault());
byId('image-filter').addEventListener('input', filter);
byId('host-filter').addEventListener('input', filter);
for (const kind of data.kinds) byId('legend').append(make('dt', {}, kind.word), make('dd', {}, kind.meaning));
sort(-1);
filter();
