// A card: one job or one batch on a line or two, opened for its error, traceback and log.

/**
 * @typedef {{kind: "job"|"batch", id: string, command: string, now: number, live: boolean, finish: ?number}} Card
 */

const CARD_WAITS_AFTER = 700;
const SEGMENTS = ["succeeded", "failed", "cancelled", "running", "pending"];

/** What views of one model share: what is under way, and whether it is open. */
class CardStore {
  constructor(model) {
    this.model = model;
    this.underWay = new Map();
    this.lastId = Math.floor(Math.random() * 2 ** 40);
    this.open = false;
    this.said = "";
    this.offset = 0;
    this.views = new Set();
    this.heard = (message) => this.hear(message);
    this.changed = () => this.draw();
    this.lost = false;
    this.linkChanged = () => { this.post({ id: ++this.lastId, do: "hello" }); this.draw(); };
    this.settle = () => { this.settleClock(); this.draw(); };
    model.on("msg:custom", this.heard);
    model.on("change:card", this.settle);
    model.on("change:detail", this.changed);
    model.on("comm_live_update", this.linkChanged);
    this.settleClock();
  }

  dispose() {
    this.model.off("msg:custom", this.heard);
    this.model.off("change:card", this.settle);
    this.model.off("change:detail", this.changed);
    this.model.off("comm_live_update", this.linkChanged);
  }

  /** @returns {Card} */
  get card() {
    return this.model.get("card");
  }

  settleClock() {
    if (this.card.now) this.offset = this.card.now - Date.now();
  }

  now() {
    return Date.now() + this.offset;
  }

  isLive() {
    return this.card.live && !this.lost;
  }

  /** Hand a message to the host, which throws where there is no kernel to take it. */
  post(message) {
    try {
      this.model.send(message);
      this.lost = false;
    } catch {
      this.lost = true;
    }
    return !this.lost;
  }

  send(what, payload = {}) {
    if (this.underWay.has(what)) return;
    const command = { id: ++this.lastId, phase: "sent" };
    this.said = "";
    this.underWay.set(what, command);
    if (!this.post({ id: command.id, do: what, ...payload })) {
      this.underWay.delete(what);
      this.draw();
      return;
    }
    setTimeout(() => {
      if (this.underWay.get(what) !== command || command.phase !== "sent") return;
      command.phase = "waiting";
      this.draw();
    }, CARD_WAITS_AFTER);
    this.draw();
  }

  hear(message) {
    for (const [what, command] of this.underWay) {
      if (command.id !== message.id) continue;
      if (message.type === "received") command.phase = "received";
      if (message.type === "done") {
        this.underWay.delete(what);
        this.said = message.ok ? "" : message.text;
      }
    }
    this.draw();
  }

  toggle() {
    this.open = !this.open;
    this.send("open", { open: this.open });
  }

  draw() {
    for (const view of this.views) view.draw();
  }
}

class CardView {
  constructor(store, el) {
    this.store = store;
    this.badge = badge();
    this.name = h("strong", { class: "nbq-cut nbq-code nbq-j-name" });
    this.id = h("span", { class: "nbq-code nbq-faint" });
    this.facts = h("span", { class: "nbq-faint nbq-cut nbq-j-facts" });
    this.time = h("span", { class: "nbq-j-time" });
    this.rest = h("span", { class: "nbq-faint nbq-j-rest" });
    this.cancel = commandButton({ key: "cancel", label: "Cancel", icon: "close", kind: "nbq-small", press: () => store.send("cancel") });
    this.retry = commandButton({ key: "retry", label: "Retry", icon: "retry", kind: "nbq-small", press: () => store.send("retry") });
    this.more = plainButton({ title: "Show error, traceback and log", icon: "down", kind: "nbq-bare nbq-small nbq-j-more", press: () => store.toggle() });
    this.line = h("div", { class: "nbq-j-line" }, this.badge, this.name, this.id, this.facts, h("span", { class: "nbq-push" }), this.time, this.rest, this.retry, this.cancel, this.more);
    this.bar = progressBar();
    this.note = h("span", { class: "nbq-faint nbq-cut nbq-j-note" });
    this.progress = h("div", { class: "nbq-j-progress" }, this.bar, this.note);
    this.segments = h("div", { class: "nbq-j-segments", role: "img" });
    this.error = h("div", { class: "nbq-code nbq-cut nbq-j-error" });
    this.said = h("div", { class: "nbq-j-said", role: "alert" });
    this.detail = h("div", { class: "nbq-j-detail", hidden: true });
    this.announced = h("span", { class: "nbq-unseen", "aria-live": "polite" });
    this.element = h("div", { class: "nbq nbq-j", role: "group", "data-lm-suppress-shortcuts": "true" }, this.line, this.segments, this.progress, this.error, this.said, this.detail, this.announced);
    el.append(this.element);
    this.endTheme = followTheme(this.element);
    this.beat = setInterval(() => this.tick(), 1000);
    store.views.add(this);
    this.draw();
  }

  dispose() {
    this.store.views.delete(this);
    this.endTheme();
    clearInterval(this.beat);
    this.element.remove();
  }

  draw() {
    const { store } = this;
    const { card } = store;
    attr(this.element, "data-live", store.isLive() ? null : "no");
    say(this.name, card.command || "batch");
    attr(this.name, "title", card.command);
    say(this.id, card.id.slice(-8));
    attr(this.id, "title", card.id);
    if (card.kind === "batch") this.drawBatch(card);
    else this.drawJob(card);
    attr(this.element, "aria-label", `${card.kind} ${card.command} ${this.badge.textContent}`);
    const said = store.said || card.trouble;
    say(this.said, said ?? "");
    show(this.said, Boolean(said));
    this.drawDetail();
    drawButtons(this.element, store);
    this.tick();
    if (this.announcedState && this.announcedState !== this.badge.textContent) say(this.announced, `${card.command} ${this.badge.textContent}`);
    this.announcedState = this.badge.textContent;
  }

  drawJob(card) {
    drawBadge(this.badge, card);
    const facts = [`on ${card.queue}`];
    if (card.max_attempts > 1 && card.attempt) facts.push(`attempt ${card.attempt} of ${card.max_attempts}`);
    say(this.facts, facts.join(" · "));
    const running = card.state === "running";
    show(this.progress, running && Boolean(card.progress));
    if (running && card.progress) {
      drawProgress(this.bar, card.progress, card.command);
      say(this.note, progressText(card.progress));
    }
    show(this.segments, false);
    const line = card.error ?? (card.state === "pending" ? card.why : "");
    attr(this.error, "data-state", card.error ? "failed" : null);
    say(this.error, line ?? "");
    attr(this.error, "title", line);
    show(this.error, Boolean(line) && !(this.store.open && card.error));
    const live = this.store.isLive();
    show(this.cancel, live && (card.state === "pending" || (running && card.status !== "cancelling")));
    show(this.retry, live && (card.state === "failed" || card.state === "cancelled" || card.status === "retrying" || card.status === "scheduled"));
    relabel(this.retry, card.state === "pending" ? "Run now" : "Retry");
    show(this.more, live);
  }

  drawBatch(card) {
    const { counts, total, ended } = card;
    const state = ended < total ? (counts.running ? "running" : "pending") : counts.failed ? "failed" : counts.succeeded ? "succeeded" : "cancelled";
    drawBadge(this.badge, { state, status: ended < total ? state : counts.failed ? `${count(counts.failed)} failed` : state });
    say(this.facts, `${count(ended)} of ${count(total)}${ended < total && counts.failed ? ` · ${count(counts.failed)} failed` : ""}`);
    show(this.progress, false);
    show(this.error, false);
    show(this.segments, total > 0);
    attr(this.segments, "aria-label", SEGMENTS.filter((name) => counts[name]).map((name) => `${count(counts[name])} ${name}`).join(", "));
    attr(this.segments, "title", this.segments.getAttribute("aria-label"));
    keyed(this.segments, SEGMENTS.filter((name) => counts[name]), (name) => name,
      (name) => h("span", { "data-state": name }), (node, name) => { node.style.flexGrow = counts[name]; });
    const live = this.store.isLive();
    show(this.cancel, live && ended < total);
    show(this.retry, live && counts.failed > 0);
    relabel(this.retry, "Retry failed");
    show(this.more, live && counts.failed > 0);
  }

  drawDetail() {
    const open = this.store.open;
    attr(this.more, "aria-expanded", String(open));
    attr(this.more, "title", open ? "Show less" : "Show error, traceback and log");
    attr(this.more, "aria-label", open ? "Show less" : "Show error, traceback and log");
    const detail = this.store.model.get("detail");
    show(this.detail, open && Boolean(detail));
    if (!open || !detail) return;
    const parts = [["", detail.why], ["Error", detail.traceback || detail.error], [detail.cut ? "The end of its log" : "Log", detail.log]].filter(([, text]) => text);
    if (!parts.length) parts.push(["", "It has said nothing yet."]);
    keyed(this.detail, parts, ([title]) => title, ([title]) => h("section", {}, title ? h("h4", { text: title }) : null, title ? h("pre", { class: "nbq-code", tabindex: 0 }) : h("p", { class: "nbq-faint" })),
      (node, [title, text]) => {
        const body = node.lastChild;
        const atEnd = body.scrollHeight - body.scrollTop - body.clientHeight < 4;
        say(body, withoutEscapes(text));
        if (title !== "Error" && atEnd) body.scrollTop = body.scrollHeight;
      });
  }

  /** What only time moves on. */
  tick() {
    const { card } = this.store;
    const now = this.store.now();
    if (card.kind === "batch") {
      say(this.time, card.rate && card.ended < card.total ? `${card.rate < 10 ? card.rate.toFixed(1) : count(Math.round(card.rate))}/s` : "");
      say(this.rest, card.ended < card.total ? left(card.finish, now) : "");
      return;
    }
    if (!this.store.isLive()) {
      say(this.time, card.run == null ? "" : duration(card.run));
      say(this.rest, "last seen so");
      return;
    }
    if (card.state === "running") say(this.time, wholeDuration(Math.max(0, now - card.started) / 1000));
    else if (card.state === "pending" && card.scheduled > now) say(this.time, `in ${wholeDuration((card.scheduled - now) / 1000)}`);
    else say(this.time, duration(card.run));
    say(this.rest, card.state === "running" ? (card.progress?.total ? left(card.finish, now) : usually(card)) : card.state === "pending" && card.scheduled <= now ? usually(card) : "");
  }
}

const usually = (card) => (card.usual == null ? "" : `usually ${duration(card.usual)}`);

function left(finish, now) {
  return finish > now ? `about ${wholeDuration(Math.ceil((finish - now) / 1000))} left` : "";
}

/** Give a button another word. */
function relabel(button, label) {
  button.nbqLabel = label;
}

/** A factory: hosts call it once per model and give `initialize` and `render` different proxies of the model. */
export default () => {
  let store = null;
  return {
    initialize({ model }) {
      store ??= new CardStore(model);
      return () => store.dispose();
    },
    render({ model, el }) {
      store ??= new CardStore(model);
      const view = new CardView(store, el);
      return () => view.dispose();
    },
  };
};
