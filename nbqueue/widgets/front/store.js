// What a panel knows: the kernel's state as last heard, what the user is doing, and which commands are under way.
// There is one per model; views come and go (scrolled out, shown twice, page rearranged) and draw from it.

/**
 * @typedef {{id: string, command: string, queue: string, state: string, status: string, attempt: number,
 *   max_attempts: number, priority: number, dispatched: number, scheduled: ?number, started: ?number,
 *   finished: ?number, wait: ?number, run: ?number, error: ?string, fingerprint: ?string, progress: ?Progress,
 *   worker: ?string, arguments: string, batch: ?string, stale: boolean}} Row
 * @typedef {{done: number, total: ?number, note: ?string}} Progress
 * @typedef {{states: string[], queue: ?string, command: ?string, text: string, fingerprint: ?string,
 *   batch: ?string}} Filter
 * @typedef {{id: number, key: string, do: string, payload: Object, phase: "sent"|"waiting"|"received"}} Command
 * @typedef {{v: number, now: number, name: string, kernel: string, queues: Object[], workers: Object[],
 *   failures: Object[], series: ?Object, commands: {name: string}[],
 *   jobs: {filter: Filter, page: number, size: number, total: ?number, order: string[], rows: Object<string, Row>},
 *   detail: ?Object, form: ?Object, notice: ?{level: string, text: string}}} State
 */

const STATES = ["pending", "running", "succeeded", "failed", "cancelled"];

/** So long after the connection went or came back it is tried (milliseconds). */
const ASK_AFTER = 300;
/** A command that the kernel has not taken in after so long waits for a busy kernel, or for none. */
const WAITING_AFTER = 700;
const LOST_AFTER = 10000;
const NO_FILTER = Object.freeze({ states: [], queue: null, command: null, text: "", fingerprint: null, batch: null });
const NOTHING = {
  v: -1, now: 0, name: "", kernel: "", queues: [], workers: [], failures: [], series: null, commands: [],
  jobs: { filter: NO_FILTER, page: 0, size: 1000, total: null, order: [], rows: {} },
  detail: null, form: null, notice: null,
};
const SECTIONS = [...Object.keys(NOTHING), "ui", "link", "message"];

class Store {
  constructor(model) {
    this.model = model;
    /** @type {State} */
    this.state = NOTHING;
    /** Add to Date.now() for the kernel's clock. */
    this.offset = 0;
    /** @type {Map<string, Command>} under way, by the control that gave them */
    this.underWay = new Map();
    this.lastId = Math.floor(Math.random() * 2 ** 40);
    this.listeners = new Set();
    this.lost = false;
    this.message = null;
    this.ui = {
      filter: NO_FILTER, page: 0, asked: false, cursor: null, selected: new Set(), scroll: 0,
      pane: null, tab: "overview", drafts: {}, errors: {}, moreOptions: false, allFailures: false,
    };
    this.apply(model.get("snapshot"));
  }

  // -- listening ------------------------------------------------------------------------------------------

  /** Listen to the model; gives back what ends that. */
  connect() {
    const heard = (message) => this.hear(message);
    const replaced = () => this.apply(this.model.get("snapshot"));
    const commChanged = () => this.lose();
    this.model.on("msg:custom", heard);
    this.model.on("change:snapshot", replaced);
    this.model.on("comm_live_update", commChanged);
    return () => {
      this.model.off("msg:custom", heard);
      this.model.off("change:snapshot", replaced);
      this.model.off("comm_live_update", commChanged);
      this.listeners.clear();
    };
  }

  /** Call `listener(sections)` whenever some change; gives back what ends that. */
  onChange(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  changed(...sections) {
    for (const listener of this.listeners) listener(sections);
  }

  // -- the kernel's state ---------------------------------------------------------------------------------

  hear(message) {
    if (this.lost) {
      this.lost = false;
      this.changed("link");
    }
    if (message.type === "snapshot") this.apply(message.state);
    else if (message.type === "patch") this.patch(message);
    else if (message.type === "received") this.received(message);
    else if (message.type === "done") this.done(message);
  }

  apply(state) {
    if (!state || state.v === undefined) return;
    this.state = { ...NOTHING, ...state };
    // It is the answer to a hello.
    this.underWay.delete("hello");
    this.settle();
    // The kernel may have rested meanwhile, and looks at no job any more.
    if (this.lacksDetail()) this.send("detail", { job: this.ui.pane.job }, "detail");
    this.changed(...SECTIONS);
  }

  /** Take in what changed; a patch that does not fit means that something was missed: ask for the whole, once. */
  patch(message) {
    if (message.v <= this.state.v) return;
    if (message.base !== this.state.v) {
      this.send("hello", {}, "hello");
      return;
    }
    const before = this.state;
    const state = { ...before, v: message.v };
    const sections = Object.keys(message.set ?? {}).map((name) => put(state, name, message.set[name]));
    if (message.rows || message.order || message.gone) {
      state.jobs = { ...state.jobs, ...patchedRows(state.jobs, message) };
      sections.push("jobs");
    }
    if (message.detail && state.detail) {
      state.detail = { ...state.detail, ...message.detail };
      sections.push("detail");
    }
    this.state = state;
    this.settle();
    if (before.detail && !state.detail && this.lacksDetail()) this.giveUp("info", `${before.detail.command} was forgotten`);
    this.changed(...sections);
  }

  /** Whether the open job is one that the kernel does not look at, and is not asked to. */
  lacksDetail() {
    const job = this.ui.pane?.job;
    return Boolean(job) && this.state.detail?.id !== job && !this.underWay.has("detail");
  }

  /** Close the pane of a job that is not there any more. */
  giveUp(level, text) {
    this.closePane();
    this.tell(level, text);
  }

  /** What follows from a new state: the clock, and whether the rows are those that were asked for. */
  settle() {
    const { state, ui } = this;
    if (state.now && state.now !== this.clockSeen) {
      this.clockSeen = state.now;
      this.offset = state.now - Date.now();
    }
    const { filter, page } = state.jobs;
    if (ui.asked && sameFilter(filter, ui.filter) && page === ui.page) ui.asked = false;
    if (!ui.asked && !this.underWay.has("view")) Object.assign(ui, { filter: { ...NO_FILTER, ...filter }, page });
  }

  /** The kernel's time now, in milliseconds. */
  now() {
    return Date.now() + this.offset;
  }

  /** @returns {string[]} the jobs to show: the kernel's, or what of them fits a filter that it has not answered yet */
  order() {
    const { jobs } = this.state;
    if (!this.ui.asked) return jobs.order;
    return jobs.order.filter((id) => jobs.rows[id] && fits(jobs.rows[id], this.ui.filter));
  }

  /** @returns {?Row} */
  row(id) {
    const { jobs, detail } = this.state;
    return jobs.rows[id] ?? (detail?.id === id ? detail : null);
  }

  // -- commands -------------------------------------------------------------------------------------------

  /** Send a command in the name of a control; one that is under way already is not sent twice. */
  send(what, payload, key) {
    if (!LATEST_COUNTS.has(key) && this.underWay.has(key)) return;
    const command = { id: ++this.lastId, key, do: what, payload, phase: "sent" };
    this.underWay.set(key, command);
    if (!this.post({ id: command.id, do: what, ...payload })) {
      this.underWay.delete(key);
      if (what !== "hello") this.tell("error", "No kernel is connected: start it and run the cell again.");
      return;
    }
    setTimeout(() => this.unanswered(command, "waiting"), WAITING_AFTER);
    setTimeout(() => this.unanswered(command, "lost"), LOST_AFTER);
    this.changed("commands under way", "link");
  }

  /** Nothing was heard of a command for a while. */
  unanswered(command, phase) {
    if (this.underWay.get(command.key) !== command || command.phase === "received") return;
    if (phase === "waiting") command.phase = "waiting";
    else if (!this.kernelIsBusy()) this.lost = true;
    this.changed("commands under way", "link");
  }

  /** Where the host lets us see it; elsewhere a long silence is all we know. */
  kernelIsBusy() {
    return this.model.widget_manager?.kernel?.status === "busy";
  }

  /** The connection to the kernel went, or came back: say so, and ask. */
  lose() {
    this.lost = true;
    this.underWay.clear();
    this.changed("commands under way", "link");
    // Where the notebook is being closed its views go in a moment, and nobody is left to ask for.
    setTimeout(() => this.lost && this.listeners.size && this.send("hello", {}, "hello"), ASK_AFTER);
  }

  /** Say whether somebody is at the panel; nobody waits for an answer to that. */
  tellBusy(busy) {
    this.post({ id: ++this.lastId, do: "idle", busy });
  }

  /** Hand a message to the host, which throws where there is no kernel to take it. */
  post(message) {
    try {
      this.model.send(message);
      return true;
    } catch {
      this.lost = true;
      this.changed("link");
      return false;
    }
  }

  commandOf(id) {
    for (const command of this.underWay.values()) if (command.id === id) return command;
    return null;
  }

  received({ id }) {
    const command = this.commandOf(id);
    if (!command) return;
    command.phase = "received";
    this.changed("commands under way", "link");
  }

  done(answer) {
    const command = this.commandOf(answer.id);
    if (!command) return;
    this.underWay.delete(command.key);
    if (command.do === "dispatch") this.dispatched(command, answer);
    else if (command.do === "detail" && !answer.ok && command.payload.job && command.payload.job === this.ui.pane?.job) this.giveUp("error", answer.text);
    else if (!answer.ok || !QUIET.has(command.do)) this.tell(answer.ok ? "info" : "error", answer.text);
    if (command.do === "view") this.ui.asked = false;
    this.settle();
    this.changed("commands under way", "link", "jobs");
  }

  dispatched(command, answer) {
    const errors = answer.errors ?? {};
    this.ui.errors = answer.ok ? {} : errors;
    // A sentence at its field says more than one at the foot.
    const placed = Object.keys(errors).some((field) => field !== "");
    if (answer.ok) this.tell("info", answer.text);
    else this.tell("error", placed ? errors[""] : answer.text);
    if (answer.ok && answer.job) this.openJob(answer.job);
    this.changed("ui");
  }

  tell(level, text) {
    this.message = text ? { level, text } : null;
    this.changed("message");
  }

  /** Whether the queue was closed: then nothing can be asked of it. */
  get closed() {
    return this.state?.notice?.level === "closed";
  }

  /** @returns {"live"|"waiting"|"last"|"closed"} */
  link() {
    if (this.closed) return "closed";
    if (this.lost || this.model.comm_live === false) return "last";
    for (const command of this.underWay.values()) if (command.phase === "waiting") return "waiting";
    return "live";
  }

  // -- what the user does ---------------------------------------------------------------------------------

  setFilter(changes) {
    this.setView({ ...this.ui.filter, ...changes }, 0);
  }

  setView(filter, page) {
    Object.assign(this.ui, { filter, page, asked: true, scroll: 0 });
    this.ui.selected.clear();
    this.send("view", { filter, page, size: this.state.jobs.size }, "view");
    this.changed("ui", "jobs");
  }

  openJob(id) {
    if (this.ui.pane?.job === id) return;
    Object.assign(this.ui, { pane: { job: id }, cursor: id });
    this.send("detail", { job: id }, "detail");
    this.changed("ui", "detail");
  }

  openForm(command) {
    Object.assign(this.ui, { pane: { form: command }, errors: {} });
    this.send("form", { command }, "form");
    this.changed("ui", "form");
  }

  closePane() {
    const { pane } = this.ui;
    if (!pane) return;
    this.ui.pane = null;
    if (pane.job) this.send("detail", { job: null }, "detail");
    else this.send("form", { command: null }, "form");
    this.changed("ui", "detail", "form");
  }

  /** Retry, cancel or forget the selected jobs if `id` is one of them, else that one. */
  act(what, id) {
    const { selected } = this.ui;
    const jobs = selected.has(id) ? [...selected] : [id];
    this.send(what, { jobs }, `${what}:${id}`);
  }
}

/** Commands whose success shows by itself. */
const QUIET = new Set(["hello", "view", "detail", "form"]);
/** Controls whose newer command replaces one under way. */
const LATEST_COUNTS = new Set(["view", "detail", "form"]);

/** Put one section of a patch in its place; gives back the section's name. */
function put(state, name, value) {
  if (!name.startsWith("jobs.")) {
    state[name] = value;
    return name;
  }
  state.jobs = { ...state.jobs, [name.slice("jobs.".length)]: value };
  return "jobs";
}

function patchedRows(jobs, { rows = {}, order = jobs.order, gone = [] }) {
  const after = { ...jobs.rows, ...rows };
  for (const id of gone) delete after[id];
  const left = new Set(gone);
  return { rows: after, order: left.size ? order.filter((id) => !left.has(id)) : order };
}

function sameFilter(one, other) {
  const text = (filter) => JSON.stringify(Object.keys(NO_FILTER).map((name) => filter[name] ?? NO_FILTER[name]));
  return text(one) === text(other);
}

const isFiltered = (filter) => !sameFilter(filter, NO_FILTER);

function fits(row, filter) {
  if (filter.states.length && !filter.states.some((word) => word === row.state || word === row.status)) return false;
  for (const name of ["queue", "command", "fingerprint", "batch"]) {
    if (filter[name] != null && row[name] !== filter[name]) return false;
  }
  const text = filter.text.trim().toLowerCase();
  return !text || [row.command, row.arguments, row.error, row.id].some((part) => part?.toLowerCase().includes(text));
}

/** What may be asked of a job where it stands. */
const canCancel = (row) => row.state === "pending" || (row.state === "running" && row.status !== "cancelling");
const canRetry = (row) => row.state !== "running" && (row.state !== "pending" || row.status !== "pending");
const hasEnded = (row) => row.state !== "pending" && row.state !== "running";
