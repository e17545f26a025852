// Above the table: whose queue this is, its queues, what fails and who works.

const LINKS = {
  live: ["live", "The kernel answers; changes show as they happen."],
  waiting: ["waiting for the kernel", "The kernel is busy with a cell; it will take this up after it."],
  last: ["shows the last state", "No kernel answers: this is what it said last."],
  closed: ["closed", "The queue was closed: this is how it stood last."],
};
const FAILURES_SHOWN = 4;

class Header {
  constructor(store) {
    this.store = store;
    this.title = h("span", { class: "nbq-title" });
    this.kernel = h("span", { class: "nbq-faint nbq-kernel" });
    this.link = h("span", { class: "nbq-link", role: "status" });
    this.menu = menuButton({ label: "New job", icon: "plus", kind: "nbq-primary", items: () => this.items() });
    this.notice = h("div", { class: "nbq-notice", role: "status", hidden: true });
    const line = h("div", { class: "nbq-header" }, this.title, this.link, this.kernel, h("span", { class: "nbq-push" }), this.menu);
    this.element = h("div", {}, line, this.notice);
  }

  items() {
    const { store } = this;
    return store.state.commands.map(({ name }) => ({ label: name, press: () => store.openForm(name) }));
  }

  draw() {
    const { name, kernel, commands, notice } = this.store.state;
    say(this.title, name.includes("://") ? name : fileName(name));
    attr(this.title, "title", name);
    say(this.kernel, kernel);
    show(this.menu, !this.store.closed && commands.length > 0);
    show(this.notice, Boolean(notice));
    say(this.notice, notice?.text ?? "");
    attr(this.notice, "data-level", notice?.level);
    this.drawLink();
  }

  drawLink() {
    const link = this.store.link();
    attr(this.link, "data-link", link);
    attr(this.link, "title", LINKS[link][1]);
    say(this.link, LINKS[link][0]);
  }
}

/** The numbers of a queue: their key, their heading, and when one is worth colour. */
const QUEUE_NUMBERS = [
  ["pending", "pending", "waiting for a worker, or for their time"],
  ["waiting", "delayed", "of the pending ones: waiting for their time"],
  ["running", "running", "running now"],
  ["failed", "failed", "failed for good"],
  ["succeeded", "succeeded", "succeeded"],
];

class Queues {
  constructor(store) {
    this.store = store;
    this.body = h("tbody");
    const headings = QUEUE_NUMBERS.map(([name, text, title]) => h("th", { scope: "col", class: `nbq-number nbq-q-${name}`, title, text }));
    const wait = h("th", { scope: "col", class: "nbq-number nbq-q-wait", title: "median wait of the jobs that ended last", text: "wait" });
    const head = h("thead", {}, h("tr", {}, h("th", { scope: "col", text: "Queue" }), ...headings, wait, h("th", { scope: "col" }, h("span", { class: "nbq-unseen", text: "Pause" }))));
    this.empty = h("p", { class: "nbq-empty", text: "Nothing has been dispatched yet." });
    this.element = h("section", { class: "nbq-card nbq-queues", "aria-label": "Queues" }, h("table", {}, head, this.body), this.empty);
  }

  draw() {
    const { queues } = this.store.state;
    show(this.empty, !queues.length);
    keyed(this.body, queues, (queue) => queue.name, (queue) => this.create(queue), (node, queue) => this.update(node, queue));
  }

  create({ name }) {
    const { store } = this;
    const pick = () => store.setFilter({ queue: store.ui.filter.queue === name ? null : name });
    const numbers = QUEUE_NUMBERS.map(([key]) => h("td", { class: `nbq-number nbq-q-${key}` }));
    return h("tr", {},
      h("th", { scope: "row" }, h("button", { type: "button", class: "nbq-pick", title: `Show the jobs of ${name}`, on: { click: pick } }, h("span", { text: name }), h("span", { class: "nbq-tag", text: "paused" }))),
      ...numbers, h("td", { class: "nbq-number nbq-q-wait" }),
      h("td", { class: "nbq-actions" }, commandButton({ key: "", label: "", icon: "pause", kind: "nbq-bare nbq-small", press: () => this.toggle(name) })));
  }

  toggle(name) {
    const what = this.store.state.queues.find((queue) => queue.name === name)?.paused ? "resume" : "pause";
    this.store.send(what, { queue: name }, `queue:${name}`);
  }

  update(node, queue) {
    const cells = node.children;
    QUEUE_NUMBERS.forEach(([key], place) => {
      say(cells[place + 1], count(queue[key]));
      attr(cells[place + 1], "data-zero", !queue[key]);
    });
    say(cells[QUEUE_NUMBERS.length + 1], duration(queue.wait) || "–");
    attr(node, "data-paused", queue.paused);
    attr(node.querySelector(".nbq-pick"), "aria-pressed", String(this.store.ui.filter.queue === queue.name));
    const button = node.querySelector("button[data-key]");
    const title = `${queue.paused ? "Resume" : "Pause"} ${queue.name}`;
    attr(button, "data-key", `queue:${queue.name}`);
    attr(button, "title", title);
    show(button, queue.paused !== null);
    attr(button.querySelector("path"), "d", ICONS[queue.paused ? "play" : "pause"]);
  }
}

class Failures {
  constructor(store) {
    this.store = store;
    this.title = h("h3", { text: "Failures" });
    this.list = h("ul", { class: "nbq-list" });
    this.more = plainButton({ label: "", kind: "nbq-quiet", press: () => this.toggleAll() });
    this.empty = h("p", { class: "nbq-empty" });
    this.element = h("section", { class: "nbq-card", "aria-label": "Failures" }, this.title, this.list, this.empty, this.more);
  }

  toggleAll() {
    this.store.ui.allFailures = !this.store.ui.allFailures;
    this.draw();
  }

  draw() {
    const { store } = this;
    const { failures } = store.state;
    const shown = store.ui.allFailures ? failures : failures.slice(0, FAILURES_SHOWN);
    show(this.empty, !failures.length);
    // Of a long history they are read after it is shown.
    const unread = store.state.queues.some((queue) => queue.failed);
    say(this.empty, unread ? "What jobs failed with is being read …" : "No job is failed.");
    show(this.more, failures.length > FAILURES_SHOWN);
    say(this.more.lastChild, store.ui.allFailures ? "Show fewer" : `Show all ${failures.length}`);
    keyed(this.list, shown, (failure) => failure.fingerprint, (failure) => this.create(failure), (node, failure) => this.update(node, failure));
  }

  create({ fingerprint }) {
    const { store } = this;
    const pick = () => store.setFilter({ ...NO_FILTER, fingerprint });
    const retry = () => store.send("retry_failure", { fingerprint }, `failure:${fingerprint}`);
    return h("li", { class: "nbq-failure" },
      h("span", { class: "nbq-count" }),
      h("span", { class: "nbq-failure-text" }, h("button", { type: "button", class: "nbq-pick nbq-code", text: fingerprint, title: `${fingerprint}\nShow these jobs`, on: { click: pick } }), h("span", { class: "nbq-faint nbq-when" })),
      h("span", { class: "nbq-actions" },
        plainButton({ label: "Show", kind: "nbq-small nbq-show", title: "Show these jobs", press: pick }),
        commandButton({ key: `failure:${fingerprint}`, label: "Retry all", title: "Let all of these run again", kind: "nbq-small", press: retry })));
  }

  update(node, failure) {
    const now = this.store.now();
    say(node.firstChild, `${count(failure.count)} ×`);
    const [first, last] = [moment(failure.first, now), moment(failure.last, now)];
    const when = first === last ? last : `first ${first} · last ${last}`;
    say(node.querySelector(".nbq-when"), [failure.commands?.join(", "), when].filter(Boolean).join(" · "));
  }
}

class Workers {
  constructor(store) {
    this.store = store;
    this.list = h("ul", { class: "nbq-list" });
    this.empty = h("p", { class: "nbq-empty", text: "No worker is at work: pending jobs wait for one." });
    this.element = h("section", { class: "nbq-card", "aria-label": "Workers" }, h("h3", { text: "Workers" }), this.list, this.empty);
  }

  draw() {
    const { workers } = this.store.state;
    show(this.empty, !workers.length);
    keyed(this.list, workers, (worker) => worker.id, (worker) => this.create(worker), (node, worker) => this.update(node, worker));
  }

  create() {
    return h("li", { class: "nbq-worker" },
      h("div", { class: "nbq-worker-line" }, h("span", { class: "nbq-code nbq-cut" }), h("span", { class: "nbq-tag", text: "this kernel" }), h("span", { class: "nbq-push" }), h("span", { class: "nbq-faint nbq-number" })),
      h("ul", { class: "nbq-runs" }));
  }

  update(node, worker) {
    const [id, here, , used] = node.firstChild.children;
    const queues = worker.queues?.length ? worker.queues.join(", ") : "all queues";
    say(id, worker.id);
    attr(id, "title", `${worker.executor} on ${worker.host}, process ${worker.pid}, takes from ${queues}`);
    show(here, worker.here);
    say(used, `${worker.running.length} of ${worker.concurrency} busy`);
    attr(used, "title", `${worker.executor} · ${queues}`);
    keyed(node.lastChild, worker.running, (run) => run.id, (run) => this.createRun(run), (line, run) => ticking(line.lastChild, run.since));
  }

  createRun(run) {
    const open = () => this.store.openJob(run.id);
    return h("li", {}, h("button", { type: "button", class: "nbq-pick", title: `Show job ${run.id}`, text: run.command, on: { click: open } }), h("span", { class: "nbq-number nbq-running" }));
  }
}
