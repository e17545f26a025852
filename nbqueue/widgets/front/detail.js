// All about one job, beside the table.

const TABS = [["overview", "Overview"], ["attempts", "Attempts"], ["logs", "Logs"], ["outputs", "Outputs"]];
const ROW_FACTS = ["queue", "priority", "dispatched", "scheduled", "started", "finished", "wait", "run", "worker", "batch"];
const MOMENTS = new Set(["dispatched", "scheduled", "started", "finished"]);
const DURATIONS = new Set(["wait", "run"]);
/** What an output may be shown as, best first, and how. */
const OUTPUT_KINDS = [
  ["text/html", htmlOutput, true],
  ["image/svg+xml", svgOutput, true],
  ["image/png", rasterOutput, false],
  ["image/jpeg", rasterOutput, false],
  ["image/gif", rasterOutput, false],
  ["text/plain", textOutput, false],
];
/** Nothing is loaded from anywhere, and nothing runs: the frame is sandboxed too. */
const FRAME_HEAD = '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src \'unsafe-inline\'"><base target="_blank">';
const FRAME_STYLE = {
  light: "color-scheme:light;background:#fff;color:#1f2328",
  dark: "color-scheme:dark;background:#1b1f24;color:#e3e7eb",
};
const FRAME_TABLE = "table{border-collapse:collapse}td,th{padding:3px 8px;text-align:right;border-bottom:1px solid #8884}";

class Detail {
  constructor(store, uid) {
    this.store = store;
    this.uid = uid;
    this.title = h("h3", { class: "nbq-pane-title" });
    this.badge = badge();
    this.id = h("span", { class: "nbq-code nbq-faint nbq-cut" });
    this.stale = h("span", { class: "nbq-tag nbq-warn", text: "code changed", title: "The code of this command has changed since the job was dispatched; the present code runs." });
    this.buttons = h("div", { class: "nbq-actions" });
    const close = plainButton({ title: "Close (Esc)", icon: "close", kind: "nbq-bare", press: () => store.closePane() });
    const head = h("div", { class: "nbq-pane-head" }, h("div", { class: "nbq-pane-line" }, this.badge, this.title, this.stale, h("span", { class: "nbq-push" }), close), h("div", { class: "nbq-pane-line" }, this.id, h("span", { class: "nbq-push" }), this.buttons));
    this.tabs = h("div", { class: "nbq-tabs", role: "tablist", "aria-label": "About the job", on: { keydown: (event) => this.moveTab(event) } }, ...TABS.map(([name, label]) => this.tab(name, label)));
    this.parts = { overview: new Overview(store), attempts: new Attempts(store), logs: new Logs(store), outputs: new Outputs(store) };
    this.body = h("div", { class: "nbq-pane-body", role: "tabpanel", id: `${uid}-tabpanel`, tabindex: 0 });
    this.element = h("section", { class: "nbq-pane", "aria-label": "Job", hidden: true }, head, this.tabs, this.body);
  }

  tab(name, label) {
    return h("button", { type: "button", class: "nbq-tab", role: "tab", id: `${this.uid}-tab-${name}`, "aria-controls": `${this.uid}-tabpanel`, "data-tab": name, on: { click: () => this.pick(name) } }, label, h("span", { class: "nbq-tab-count" }));
  }

  pick(name) {
    this.store.ui.tab = name;
    this.draw();
  }

  moveTab(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const names = TABS.map(([name]) => name);
    this.pick(names[(names.indexOf(this.store.ui.tab) + step + names.length) % names.length]);
    this.tabs.querySelector('[aria-selected="true"]').focus();
    event.preventDefault();
    event.stopPropagation();
  }

  /** @returns {?Object} the job as far as it is known: its row until all of it is there */
  job() {
    const id = this.store.ui.pane?.job;
    if (!id) return null;
    const { detail, jobs } = this.store.state;
    const row = jobs.rows[id];
    if (detail?.id === id) return { ...detail, ...row, whole: true };
    return row ? { ...row, whole: false } : { id, command: "…", state: "", status: "", whole: false };
  }

  draw() {
    const job = this.job();
    show(this.element, Boolean(job));
    if (!job) return;
    say(this.title, job.command);
    attr(this.title, "title", job.command);
    drawBadge(this.badge, job);
    say(this.id, job.id);
    show(this.stale, Boolean(job.stale));
    this.drawButtons(job);
    this.drawTabs(job);
    const part = this.parts[this.store.ui.tab];
    if (this.body.firstChild !== part.element || this.shownJob !== job.id) {
      this.body.replaceChildren(part.element);
      this.body.scrollTop = 0;
    }
    this.shownJob = job.id;
    attr(this.body, "aria-busy", job.whole ? null : "true");
    part.draw(job, this.body);
  }

  drawButtons(job) {
    const { store } = this;
    const all = [["retry", job.state === "succeeded" ? "Run again" : "Retry", canRetry(job)], ["cancel", "Cancel", canCancel(job)], ["forget", "Forget", hasEnded(job)]];
    const possible = job.state ? all.filter(([, , can]) => can) : [];
    keyed(this.buttons, possible, ([what]) => `${what}:${job.id}`, ([what, label]) => {
      const send = () => store.send(what, { jobs: [job.id] }, `${what}:${job.id}`);
      const button = commandButton({ key: `${what}:${job.id}`, label, kind: "nbq-small", press: () => (what === "forget" ? twice(button, send) : send()) });
      return button;
    }, () => {});
  }

  drawTabs(job) {
    const counts = { attempts: job.attempts?.length, outputs: job.outputs?.length };
    for (const tab of this.tabs.children) {
      const chosen = tab.dataset.tab === this.store.ui.tab;
      attr(tab, "aria-selected", String(chosen));
      attr(tab, "tabindex", chosen ? 0 : -1);
      say(tab.lastChild, counts[tab.dataset.tab] ? String(counts[tab.dataset.tab]) : "");
      if (chosen) attr(this.body, "aria-labelledby", tab.id);
    }
  }
}

/** What cannot be undone wants a second press, soon. */
function twice(button, act) {
  const text = button.querySelector(".nbq-button-text");
  if (text.textContent !== button.nbqLabel) return act();
  say(text, "Forget for good?");
  setTimeout(() => say(text, button.nbqLabel), 3000);
}

/** Arguments, times, metadata, why it does not run, its last error. */
class Overview {
  constructor(store) {
    this.store = store;
    this.why = h("p", { class: "nbq-why" });
    this.bar = progressBar();
    this.progress = h("div", { class: "nbq-pane-progress" }, this.bar, h("span", {}));
    this.error = h("div", { class: "nbq-error" }, h("div", { class: "nbq-error-text" }));
    this.traceback = traceback();
    this.arguments = h("pre", { class: "nbq-pre", tabindex: 0, "aria-label": "Arguments" });
    this.facts = h("dl", { class: "nbq-facts" });
    this.metadata = h("dl", { class: "nbq-facts" });
    this.metadataTitle = h("h4", { text: "Metadata" });
    this.element = h("div", { class: "nbq-part" }, this.why, this.progress, this.error, this.traceback, this.facts, h("h4", { text: "Arguments" }), this.arguments, this.metadataTitle, this.metadata);
  }

  draw(job) {
    const latest = job.attempts?.[0];
    say(this.why, job.why ?? "");
    show(this.why, Boolean(job.why));
    show(this.progress, Boolean(job.progress));
    if (job.progress) {
      drawProgress(this.bar, job.progress, job.command);
      say(this.progress.lastChild, progressText(job.progress));
    }
    const failing = job.state !== "succeeded" && job.error;
    show(this.error, Boolean(failing));
    if (failing) say(this.error.firstChild, job.error);
    drawTraceback(this.traceback, failing ? job.traceback ?? latest?.traceback : null);
    say(this.arguments, (job.arguments_text ?? job.arguments) || "none");
    drawFacts(this.facts, this.factsOf(job));
    const metadata = Object.entries(job.metadata ?? {});
    show(this.metadataTitle, metadata.length > 0);
    drawFacts(this.metadata, metadata.map(([name, text]) => ({ name, text: String(text) })));
  }

  factsOf(job) {
    const now = this.store.now();
    const facts = [{ name: "attempt", text: job.attempt ? `${job.attempt} of ${job.max_attempts}` : `none yet, ${job.max_attempts ?? "?"} at most` }];
    for (const name of ROW_FACTS) {
      if (job[name] == null || job[name] === "") continue;
      if (MOMENTS.has(name)) facts.push({ name, text: moment(job[name], now), title: exactly(job[name]) });
      else facts.push({ name, text: DURATIONS.has(name) ? duration(job[name]) : String(job[name]) });
    }
    if (job.state === "running" && job.started) facts.push({ name: "run", text: "", since: job.started });
    return facts;
  }
}

/** @param {{name: string, text: string, title?: string, since?: number}[]} facts */
function drawFacts(list, facts) {
  keyed(list, facts, (fact) => fact.name, (fact) => h("div", { "data-fact": fact.name }, h("dt", { text: fact.name }), h("dd", {})), (node, { text, title, since }) => {
    attr(node.lastChild, "title", title ?? null);
    ticking(node.lastChild, since);
    if (!since) say(node.lastChild, text);
  });
}

function traceback() {
  return h("details", { class: "nbq-traceback" }, h("summary", { text: "Traceback" }), h("pre", { class: "nbq-pre", tabindex: 0, "aria-label": "Traceback" }));
}

function drawTraceback(node, text) {
  show(node, Boolean(text));
  say(node.lastChild, withoutEscapes(text ?? ""));
}

/** Each attempt, newest first. */
class Attempts {
  constructor(store) {
    this.store = store;
    this.list = h("ol", { class: "nbq-list" });
    this.empty = h("p", { class: "nbq-empty", text: "Nothing has run it yet." });
    this.element = h("div", { class: "nbq-part" }, this.list, this.empty);
  }

  draw(job) {
    const attempts = job.attempts ?? [];
    show(this.empty, job.whole && !attempts.length);
    keyed(this.list, attempts, (attempt) => `${job.id}:${attempt.attempt}:${attempt.started}`, () => this.create(), (node, attempt) => this.update(node, attempt));
  }

  create() {
    return h("li", { class: "nbq-attempt" },
      h("div", { class: "nbq-pane-line" }, h("strong", {}), badge(), h("span", { class: "nbq-number" }), h("span", { class: "nbq-push" }), h("span", { class: "nbq-faint nbq-number" })),
      h("div", { class: "nbq-faint nbq-cut" }), h("div", { class: "nbq-error-text" }), traceback());
  }

  update(node, attempt) {
    const [line, worker, error, trace] = node.children;
    const [number, outcome, run, , started] = line.children;
    const now = this.store.now();
    const running = !attempt.outcome;
    say(number, `Attempt ${attempt.attempt}`);
    drawBadge(outcome, { state: OUTCOME_STATES[attempt.outcome ?? "running"] ?? "failed", status: (attempt.outcome ?? "running").replaceAll("_", " ") });
    ticking(run, running && attempt.started ? attempt.started : null);
    if (run.dataset.since) drawTick(run, now);
    else say(run, duration(attempt.run));
    say(started, moment(attempt.started, now));
    attr(started, "title", `${exactly(attempt.started)} – ${exactly(attempt.finished)}`);
    say(worker, attempt.worker ? `by ${attempt.worker}` : "");
    attr(worker, "title", attempt.worker);
    const because = attempt.cause && attempt.cause !== "error" ? ` (${attempt.cause})` : "";
    say(error, attempt.error ? attempt.error + because : because.trim());
    show(error, Boolean(error.textContent));
    drawTraceback(trace, attempt.traceback);
  }
}

/** Which colour an attempt's outcome has. */
const OUTCOME_STATES = { running: "running", succeeded: "succeeded", cancelled: "cancelled", interrupted: "pending", released: "pending", refused: "pending" };

/** What the job said, as it came; stays at the end unless one scrolls up. */
class Logs {
  constructor(store) {
    this.store = store;
    this.text = h("pre", { class: "nbq-pre nbq-log" });
    this.cut = h("p", { class: "nbq-faint", text: "The beginning is left out here: job.logs() has all of it." });
    this.empty = h("p", { class: "nbq-empty", text: "It has printed and logged nothing." });
    this.element = h("div", { class: "nbq-part nbq-logs" }, this.cut, this.text, this.empty);
  }

  draw(job, scroller) {
    const logs = job.logs ?? [];
    show(this.cut, Boolean(job.logs_truncated));
    show(this.empty, job.whole && !logs.length);
    show(this.text, logs.length > 0);
    const follows = this.drawn !== job.id || scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 24;
    this.append(job.id, logs);
    if (follows) scroller.scrollTop = scroller.scrollHeight;
  }

  /** Add what is new at the end; draw anew what does not go on from what is there. */
  append(id, logs) {
    const there = this.drawn === id ? this.logs : [];
    const goesOn = there.length && logs.length >= there.length && sameLog(there[0], logs[0]) && sameLog(there.at(-1), logs[there.length - 1]);
    if (!goesOn) this.text.replaceChildren();
    let before = goesOn ? there.at(-1).attempt : null;
    for (const part of logs.slice(goesOn ? there.length : 0)) {
      if (part.attempt !== before) this.text.append(h("span", { class: "nbq-log-attempt", text: `attempt ${part.attempt}` }));
      before = part.attempt;
      this.text.append(h("span", { class: "nbq-log-part", "data-stream": part.stream, title: `${part.stream} · ${timeOfDay(part.at, true)}`, text: withoutEscapes(part.text) }));
    }
    Object.assign(this, { drawn: id, logs });
  }
}

const sameLog = (one, other) => one.at === other.at && one.text === other.text && one.stream === other.stream;

/** What it displayed. HTML only in a frame that may run and load nothing. */
class Outputs {
  constructor(store) {
    this.store = store;
    this.list = h("div", { class: "nbq-outputs" });
    this.empty = h("p", { class: "nbq-empty", text: "It has displayed nothing." });
    this.element = h("div", { class: "nbq-part" }, this.list, this.empty);
  }

  draw(job) {
    const outputs = job.outputs ?? [];
    const theme = this.list.closest("[data-theme]")?.dataset.theme ?? "light";
    show(this.empty, job.whole && !outputs.length);
    const places = outputs.map((output, place) => ({ output, place }));
    const same = (node, output) => node.nbqTheme === theme && node.nbqText === JSON.stringify(output.data);
    keyed(this.list, places, ({ place }) => `${job.id}:${place}`, () => h("div", { class: "nbq-output" }), (node, { output }) => {
      if (same(node, output)) return;
      Object.assign(node, { nbqTheme: theme, nbqText: JSON.stringify(output.data) });
      node.replaceChildren(...drawOutput(output, theme));
    });
  }
}

function drawOutput(output, theme) {
  const has = (mime) => output.data[mime] != null;
  const kind = OUTPUT_KINDS.find(([mime, , rich]) => has(mime) && (output.trusted || !rich));
  const held = !output.trusted && OUTPUT_KINDS.some(([mime, , rich]) => rich && has(mime));
  const note = held ? h("p", { class: "nbq-faint", text: "From a source that is not trusted: only its text and images are shown." }) : null;
  if (!kind) return [note ?? h("p", { class: "nbq-faint", text: `Not shown here: ${Object.keys(output.data).join(", ")}` })];
  const [mime, draw] = kind;
  return [note, draw(joined(output.data[mime]), mime, theme)].filter(Boolean);
}

/** Notebook formats may keep a text as a list of its lines. */
const joined = (value) => (Array.isArray(value) ? value.join("") : typeof value === "string" ? value : JSON.stringify(value, null, 1));

function htmlOutput(html, _mime, theme) {
  const style = `<style>html{${FRAME_STYLE[theme]};font:12px system-ui,sans-serif}body{margin:8px}${FRAME_TABLE}</style>`;
  return h("iframe", { class: "nbq-frame", sandbox: "", srcdoc: FRAME_HEAD + style + html, title: "HTML output" });
}

function svgOutput(text) {
  return h("img", { class: "nbq-image", alt: "image output", src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}` });
}

function rasterOutput(base64, mime) {
  return h("img", { class: "nbq-image", alt: "image output", src: `data:${mime};base64,${base64.replace(/\s/g, "")}` });
}

function textOutput(text) {
  return h("pre", { class: "nbq-pre", text: withoutEscapes(text), tabindex: 0, "aria-label": "Text output" });
}
