// The panel: what is drawn when, and its life.

const QUIET_AFTER = 2000;
const MESSAGE_FOR = { info: 5000, error: 20000 };
let views = 0;

class Panel {
  constructor(store, el) {
    this.store = store;
    this.dirty = new Set(SECTIONS);
    views += 1;
    const uid = `nbq-${views}-${Math.random().toString(36).slice(2, 8)}`;
    this.build(uid);
    el.append(this.element);
    this.endings = [followTheme(this.element), store.onChange((sections) => this.mark(sections)), keepPlainKeys(this.element), this.watchPresence(), () => this.throughput.dispose(), () => this.backlog.dispose()];
    const beat = setInterval(() => this.tick(), 1000);
    this.endings.push(() => clearInterval(beat), () => cancelAnimationFrame(this.frame), () => this.element.remove());
    this.heightChanged = () => this.table.setHeight();
    store.model.on("change:height", this.heightChanged);
    this.draw();
    store.send("hello", {}, "hello");
  }

  build(uid) {
    const { store } = this;
    this.header = new Header(store);
    this.queues = new Queues(store);
    this.throughput = new Chart(store, THROUGHPUT);
    this.backlog = new Chart(store, BACKLOG);
    this.failures = new Failures(store);
    this.workers = new Workers(store);
    this.filters = new Filters(store);
    this.table = new JobTable(store, uid);
    this.detail = new Detail(store, uid);
    this.form = new DispatchForm(store, uid);
    this.filters.onLeave = () => this.table.grid.focus();
    this.message = h("div", { class: "nbq-message", hidden: true }, h("span", { "aria-hidden": "true" }), plainButton({ title: "Dismiss", icon: "close", kind: "nbq-bare nbq-small", press: () => store.tell("info", "") }));
    this.live = h("div", { class: "nbq-unseen", "aria-live": "polite" });
    const charts = h("div", { class: "nbq-charts" }, this.throughput.element, this.backlog.element);
    const overview = h("div", { class: "nbq-overview" }, this.queues.element, charts);
    const state = h("div", { class: "nbq-overview nbq-second" }, this.failures.element, this.workers.element);
    const list = h("div", { class: "nbq-card nbq-list-side" }, this.filters.element, this.table.element);
    this.jobs = h("div", { class: "nbq-jobs" }, list, h("div", { class: "nbq-pane-side" }, this.detail.element, this.form.element));
    const inner = h("div", { class: "nbq-inner" }, this.header.element, overview, state, this.jobs, this.message, this.live);
    this.element = h("div", { class: "nbq nbq-panel", role: "region", "aria-label": "Job queue", on: { keydown: (event) => this.pressed(event) } }, inner);
  }

  // -- drawing: what changed since the last frame, once a frame ---------------------------------------------

  mark(sections) {
    for (const section of sections) this.dirty.add(section);
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.frame = 0;
    const { dirty } = this;
    this.dirty = new Set();
    const any = (...sections) => sections.some((section) => dirty.has(section));
    if (any("name", "kernel", "commands", "notice")) this.header.draw();
    if (any("link")) this.header.drawLink();
    if (any("queues", "ui")) this.queues.draw();
    if (any("series")) [this.throughput, this.backlog].forEach((chart) => chart.draw());
    if (any("failures", "queues")) this.failures.draw();
    if (any("workers")) this.workers.draw();
    if (any("ui", "queues", "commands", "jobs")) this.filters.draw();
    if (any("jobs", "ui", "link")) this.table.draw();
    if (any("jobs", "detail", "ui")) this.detail.draw();
    if (any("form", "ui")) this.form.draw();
    if (any("ui")) attr(this.jobs, "data-pane", this.store.ui.pane ? "open" : null);
    if (any("message")) this.drawMessage();
    if (any("link", "commands under way")) this.announceWaiting();
    this.tick();
    drawButtons(this.element, this.store);
  }

  tick() {
    if (!document.hidden) drawTicking(this.element, this.store.now());
  }

  drawMessage() {
    const { message } = this.store;
    show(this.message, Boolean(message));
    clearTimeout(this.fading);
    if (!message) return;
    attr(this.message, "data-level", message.level);
    say(this.message.firstChild, message.text);
    this.announce(message.text);
    this.fading = setTimeout(() => this.store.message === message && this.store.tell("info", ""), MESSAGE_FOR[message.level]);
  }

  announceWaiting() {
    const waits = this.store.link() === "waiting";
    if (waits && !this.waited) this.announce("waiting for the kernel");
    this.waited = waits;
  }

  announce(text) {
    say(this.live, text);
  }

  // -- keys, and whether somebody is here -------------------------------------------------------------------

  pressed(event) {
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && this.store.ui.pane) {
      this.store.closePane();
      this.table.grid.focus({ preventScroll: true });
    } else if (event.key === "/" && !typing) {
      this.filters.search.focus();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Tell the kernel when pointer or focus come in, and when both have been away for a while. */
  watchPresence() {
    let said = false;
    const settle = debounced(() => this.element.isConnected && tell(this.element.matches(":hover, :focus-within")), QUIET_AFTER);
    const tell = (busy) => {
      if (busy !== said) this.store.tellBusy(busy);
      said = busy;
    };
    const come = () => tell(true);
    for (const name of ["pointerenter", "focusin"]) this.element.addEventListener(name, come);
    for (const name of ["pointerleave", "focusout"]) this.element.addEventListener(name, settle);
    return () => tell(false);
  }

  dispose() {
    clearTimeout(this.fading);
    this.store.model.off("change:height", this.heightChanged);
    for (const end of this.endings) end();
  }
}

/**
 * Keep keys without Ctrl, Alt or Cmd from being the host's shortcuts (in JupyterLab r, c, x … act on cells) while the
 * focus is in here. JupyterLab looks for the attribute at the focused element, in the capture phase of the document.
 */
function keepPlainKeys(el) {
  const mark = (event) => {
    const plain = !(event.ctrlKey || event.metaKey || event.altKey);
    if (el.contains(event.target)) attr(event.target, "data-lm-suppress-shortcuts", plain ? "true" : null);
  };
  window.addEventListener("keydown", mark, true);
  return () => window.removeEventListener("keydown", mark, true);
}

/** A factory: hosts call it once per model and give `initialize` and `render` different proxies of the model. */
export default () => {
  let store = null;
  const storeOf = (model) => {
    if (store) return null;
    store = new Store(model);
    return store.connect();
  };
  return {
    initialize({ model }) {
      return storeOf(model) ?? undefined;
    },
    render({ model, el }) {
      storeOf(model);
      const panel = new Panel(store, el);
      return () => panel.dispose();
    },
  };
};
