// The jobs, as a grid of which only the rows in sight are in the page.

const ROW_HEIGHT = 30;
/** Rows kept above and below those in sight, so that scrolling shows no gaps. */
const SPARE = 8;
const DETAIL_AFTER = 150;

/**
 * The columns: name, heading, and how a job is drawn into a cell.
 * @type {[string, string, (cell: Element, row: Row, store: Store) => void][]}
 */
const COLUMNS = [
  ["state", "State", (cell, row) => drawBadge(cell.firstChild ?? cell.appendChild(badge()), row)],
  ["command", "Command", (cell, row) => textCell(cell, row.command, row.stale ? `${row.command}: its code changed since it was dispatched` : row.command)],
  ["arguments", "Arguments", (cell, row) => textCell(cell, row.arguments)],
  ["queue", "Queue", (cell, row) => textCell(cell, row.queue)],
  ["attempt", "Try", (cell, row) => textCell(cell, row.attempt ? `${row.attempt}/${row.max_attempts}` : "–", `attempt ${row.attempt} of ${row.max_attempts}`)],
  ["wait", "Wait", drawWait],
  ["run", "Run", drawRun],
  ["news", "Progress / error", drawNews],
  ["dispatched", "Dispatched", (cell, row, store) => textCell(cell, moment(row.dispatched, store.now()), exactly(row.dispatched))],
];

function textCell(cell, text, title = text) {
  say(cell, text ?? "");
  attr(cell, "title", title || null);
}

/** A job that waits for its time counts down to it. */
function drawWait(cell, row, store) {
  const ahead = row.state === "pending" && row.scheduled > store.now() ? row.scheduled : null;
  ticking(cell, ahead ?? (row.state === "pending" && row.wait == null ? Math.max(row.dispatched, row.scheduled ?? 0) : null));
  if (cell.dataset.since) drawTick(cell, store.now());
  else say(cell, duration(row.wait));
}

function drawRun(cell, row, store) {
  const runs = row.state === "running" && row.started != null;
  ticking(cell, runs ? row.started : null);
  if (runs) drawTick(cell, store.now());
  else say(cell, duration(row.run));
}

/** One column for both: what runs has progress, what does not run any more has an error. */
function drawNews(cell, row) {
  const progress = row.state === "running" ? row.progress : null;
  let bar = cell.querySelector(".nbq-bar");
  if (progress && !bar) {
    bar = progressBar();
    cell.replaceChildren(bar, h("span", { class: "nbq-cut" }));
  }
  if (!progress) {
    textCell(cell, row.error ?? "");
    return;
  }
  drawProgress(bar, progress, row.command);
  say(cell.lastChild, progressText(progress));
  attr(cell, "title", progressText(progress));
}

class JobTable {
  constructor(store, uid) {
    this.store = store;
    this.uid = uid;
    /** @type {Map<string, Element>} rows in the page, by job */
    this.rows = new Map();
    this.order = [];
    const headings = COLUMNS.map(([name, title]) => h("div", { role: "columnheader", class: `nbq-cell nbq-c-${name}`, text: title }));
    this.head = h("div", { class: "nbq-row nbq-head", role: "row", "aria-rowindex": 1 }, ...headings);
    this.body = h("div", { class: "nbq-body", role: "rowgroup" });
    this.grid = h("div", { class: "nbq-grid", role: "grid", tabindex: 0, "aria-label": "Jobs", "aria-multiselectable": "true", on: { scroll: () => this.scrolled(), keydown: (event) => this.pressed(event), focus: () => this.focused() } },
      h("div", { role: "rowgroup", class: "nbq-head-place" }, this.head), this.body);
    this.empty = h("div", { class: "nbq-empty nbq-none", hidden: true });
    this.foot = new TableFoot(store);
    this.element = h("div", { class: "nbq-table" }, this.grid, this.empty, this.foot.element);
    this.showDetail = debounced((id) => store.openJob(id), DETAIL_AFTER);
    this.setHeight();
  }

  setHeight() {
    this.grid.style.height = `${this.store.model.get("height") || 360}px`;
  }

  // -- drawing --------------------------------------------------------------------------------------------

  draw() {
    const before = this.order;
    this.order = this.store.order();
    this.body.style.height = `${this.order.length * ROW_HEIGHT}px`;
    if (before !== this.order) this.keepPlace(before);
    const { jobs } = this.store.state;
    attr(this.grid, "aria-rowcount", (jobs.total ?? this.order.length) + 1);
    attr(this.grid, "aria-busy", this.store.ui.asked ? "true" : null);
    this.drawRows();
    this.drawEmpty();
    this.foot.draw(this.order.length);
  }

  /** New jobs above push what one reads down: scroll with it, unless one is at the top. */
  keepPlace(before) {
    const top = this.grid.scrollTop;
    if (this.store.ui.scroll !== this.seenScroll) {
      this.grid.scrollTop = this.store.ui.scroll;
    } else if (top > 0) {
      const first = Math.floor(top / ROW_HEIGHT);
      const place = this.order.indexOf(before[first]);
      if (place >= 0 && place !== first) this.grid.scrollTop = top + (place - first) * ROW_HEIGHT;
    }
    this.store.ui.scroll = this.seenScroll = this.grid.scrollTop;
  }

  drawRows() {
    const first = Math.max(0, Math.floor(this.grid.scrollTop / ROW_HEIGHT) - SPARE);
    const last = Math.min(this.order.length, Math.ceil((this.grid.scrollTop + this.grid.clientHeight) / ROW_HEIGHT) + SPARE);
    const gone = new Map(this.rows);
    for (let place = first; place < last; place += 1) {
      const id = this.order[place];
      const row = this.store.state.jobs.rows[id];
      if (!row) continue;
      this.drawRow(gone.get(id) ?? this.create(id), row, place);
      gone.delete(id);
    }
    for (const [id, node] of gone) {
      node.remove();
      this.rows.delete(id);
    }
    this.drawCursor();
  }

  create(id) {
    const cells = COLUMNS.map(([name]) => h("div", { role: "gridcell", class: `nbq-cell nbq-c-${name}` }));
    const node = h("div", { class: "nbq-row", role: "row", id: `${this.uid}-${id}`, "data-job": id, on: { click: (event) => this.clicked(event, id) } }, ...cells, h("div", { role: "gridcell", class: "nbq-row-buttons" }));
    this.rows.set(id, node);
    this.body.append(node);
    return node;
  }

  drawRow(node, row, place) {
    const { ui, state } = this.store;
    if (node.nbqPlace !== place) {
      node.nbqPlace = place;
      node.style.transform = `translateY(${place * ROW_HEIGHT}px)`;
    }
    attr(node, "aria-rowindex", state.jobs.page * state.jobs.size + place + 2);
    attr(node, "aria-selected", String(ui.selected.has(row.id) || ui.pane?.job === row.id));
    if (node.nbqRow === row) return;
    node.nbqRow = row;
    attr(node, "data-state", row.state);
    attr(node, "data-stale", row.stale);
    COLUMNS.forEach(([, , draw], index) => draw(node.children[index], row, this.store));
    this.drawActions(node.lastChild, row);
  }

  drawActions(place, row) {
    const { store } = this;
    const actions = [];
    if (canRetry(row)) actions.push(["retry", "Retry", "retry"]);
    if (canCancel(row)) actions.push(["cancel", "Cancel", "close"]);
    keyed(place, actions, ([what]) => what, ([what, label, picture]) => {
      const button = commandButton({ key: `${what}:${row.id}`, label: "", title: `${label} (${what[0]})`, icon: picture, kind: "nbq-bare nbq-small", press: () => store.act(what, row.id) });
      attr(button, "tabindex", -1);
      return button;
    }, () => {});
  }

  drawCursor() {
    const { cursor } = this.store.ui;
    for (const [id, node] of this.rows) attr(node, "data-cursor", id === cursor);
    attr(this.grid, "aria-activedescendant", this.rows.has(cursor) ? `${this.uid}-${cursor}` : null);
  }

  drawEmpty() {
    const none = !this.order.length;
    show(this.empty, none);
    show(this.body, !none);
    if (none) say(this.empty, isFiltered(this.store.ui.filter) ? "No job is like that." : "No jobs yet: dispatch one, and it shows here.");
  }

  scrolled() {
    this.store.ui.scroll = this.seenScroll = this.grid.scrollTop;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.drawRows();
      drawButtons(this.body, this.store);
    });
  }

  // -- mouse and keyboard -----------------------------------------------------------------------------------

  clicked(event, id) {
    const { ui } = this.store;
    if (event.shiftKey) this.selectTo(id);
    else if (event.ctrlKey || event.metaKey) toggleIn(ui.selected, id);
    else this.store.openJob(id);
    ui.cursor = id;
    this.grid.focus({ preventScroll: true });
    this.store.changed("jobs");
  }

  selectTo(id) {
    const { ui } = this.store;
    const [from, to] = [this.order.indexOf(ui.cursor ?? id), this.order.indexOf(id)].sort((a, b) => a - b);
    for (const other of this.order.slice(Math.max(0, from), to + 1)) ui.selected.add(other);
  }

  focused() {
    const { ui } = this.store;
    if (!this.order.includes(ui.cursor)) ui.cursor = this.order[Math.round(this.grid.scrollTop / ROW_HEIGHT)] ?? null;
    this.drawCursor();
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { store } = this;
    const { cursor } = store.ui;
    const page = Math.max(1, Math.floor(this.grid.clientHeight / ROW_HEIGHT) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const row = store.row(cursor);
    if (event.key in steps) this.move(steps[event.key], event.shiftKey);
    else if (event.key === "Enter" && row) store.openJob(cursor);
    else if (event.key === " " && row) toggleIn(store.ui.selected, cursor);
    else if (event.key === "r" && row) store.act("retry", cursor);
    else if (event.key === "c" && row) store.act("cancel", cursor);
    else return;
    event.preventDefault();
    event.stopPropagation();
    store.changed("jobs");
  }

  move(step, selects) {
    const { ui } = this.store;
    const from = this.order.indexOf(ui.cursor);
    const to = Math.max(0, Math.min(this.order.length - 1, from < 0 ? 0 : from + step));
    if (this.order[to] === undefined) return;
    if (selects) this.selectTo(this.order[to]);
    ui.cursor = this.order[to];
    this.reveal(to);
    if (ui.pane?.job) this.showDetail(ui.cursor);
  }

  /** Scroll so far that a row is in sight, below the heading. */
  reveal(place) {
    const { grid } = this;
    const [top, bottom] = [place * ROW_HEIGHT, (place + 1) * ROW_HEIGHT + this.head.offsetHeight];
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (bottom > grid.scrollTop + grid.clientHeight) grid.scrollTop = bottom - grid.clientHeight;
  }
}

function toggleIn(set, item) {
  if (!set.delete(item)) set.add(item);
}

/** Below the table: how many there are, pages, and what may be done with the selected ones. */
class TableFoot {
  constructor(store) {
    this.store = store;
    this.range = h("span", { class: "nbq-faint" });
    this.selected = h("span", {});
    const act = (what) => () => store.send(what, { jobs: [...store.ui.selected] }, `${what}:selected`);
    this.actions = h("span", { class: "nbq-selected", hidden: true }, this.selected,
      commandButton({ key: "retry:selected", label: "Retry", kind: "nbq-small", press: act("retry") }),
      commandButton({ key: "cancel:selected", label: "Cancel", kind: "nbq-small", press: act("cancel") }),
      plainButton({ label: "Select none", kind: "nbq-quiet nbq-small", press: () => { store.ui.selected.clear(); store.changed("jobs"); } }));
    this.back = plainButton({ title: "Newer jobs", icon: "left", kind: "nbq-bare nbq-small", press: () => this.turn(-1) });
    this.on = plainButton({ title: "Older jobs", icon: "right", kind: "nbq-bare nbq-small", press: () => this.turn(1) });
    const keys = h("span", { class: "nbq-faint nbq-keys" });
    for (const [key, meaning] of [["↑↓", "move"], ["Enter", "open"], ["Space", "select"], ["r", "retry"], ["c", "cancel"], ["/", "search"]]) {
      keys.append(h("span", { class: "nbq-key-cap", text: key }), ` ${meaning} `);
    }
    this.element = h("div", { class: "nbq-foot" }, this.range, this.back, this.on, this.actions, h("span", { class: "nbq-push" }), keys);
  }

  turn(step) {
    const { ui } = this.store;
    this.store.setView(ui.filter, Math.max(0, ui.page + step));
  }

  draw(shown) {
    const { jobs } = this.store.state;
    const { ui } = this.store;
    const from = jobs.page * jobs.size;
    const total = jobs.total ?? null;
    const pages = total === null ? shown >= jobs.size : total > from + shown;
    const span = jobs.page > 0 || pages ? `${count(shown ? from + 1 : 0)}–${count(from + shown)} of ${total === null ? "many" : count(total)} jobs` : counted(shown, "job");
    const waits = this.store.underWay.get("view")?.phase === "waiting";
    say(this.range, ui.asked ? `${counted(shown, "job")} of those here${waits ? " · waiting for the kernel" : " …"}` : span);
    show(this.back, jobs.page > 0);
    show(this.on, pages && !ui.asked);
    show(this.actions, ui.selected.size > 0);
    say(this.selected, `${count(ui.selected.size)} selected`);
  }
}
