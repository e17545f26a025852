// Which jobs the table shows.

const SEARCH_AFTER = 250;

class Filters {
  constructor(store) {
    this.store = store;
    this.states = h("div", { class: "nbq-chips", role: "group", "aria-label": "States" }, ...STATES.map((state) => this.chip(state)));
    this.queue = this.select("queue", "all queues");
    this.command = this.select("command", "all commands");
    const search = debounced(() => store.setFilter({ text: this.search.value }), SEARCH_AFTER);
    this.search = h("input", { type: "search", class: "nbq-input", placeholder: "Search", title: "in commands, arguments, errors and ids  ( / )", "aria-label": "Search in commands, arguments, errors and ids", on: { input: search, keydown: (event) => this.leave(event) } });
    this.pinned = h("div", { class: "nbq-chips" });
    this.clear = plainButton({ label: "Clear", kind: "nbq-quiet", title: "Show all jobs", press: () => this.reset() });
    const searching = h("span", { class: "nbq-search" }, icon("search"), this.search);
    this.element = h("div", { class: "nbq-filters", role: "search", "aria-label": "Jobs shown" }, this.states, this.queue, this.command, searching, this.pinned, this.clear);
  }

  chip(state) {
    const toggle = () => {
      const { states } = this.store.ui.filter;
      this.store.setFilter({ states: states.includes(state) ? states.filter((other) => other !== state) : [...states, state] });
    };
    return h("button", { type: "button", class: "nbq-chip", "data-state": state, text: state, on: { click: toggle } });
  }

  select(name, all) {
    const pick = (event) => this.store.setFilter({ [name]: event.target.value.slice(1) || null });
    const node = h("select", { class: "nbq-input", "aria-label": name, on: { change: pick } });
    node.nbqAll = all;
    return node;
  }

  /** Escape gives the search up, Arrow down goes on to the table. */
  leave(event) {
    if (event.key === "Escape" && this.search.value) {
      this.search.value = "";
      this.store.setFilter({ text: "" });
    } else if (event.key === "ArrowDown") {
      this.onLeave?.();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  reset() {
    this.search.value = "";
    this.store.setFilter(NO_FILTER);
  }

  draw() {
    const { filter } = this.store.ui;
    const { queues, commands } = this.store.state;
    for (const chip of this.states.children) attr(chip, "aria-pressed", String(filter.states.includes(chip.dataset.state)));
    drawOptions(this.queue, queues.map((queue) => queue.name), filter.queue);
    drawOptions(this.command, commands.map((command) => command.name), filter.command);
    const typing = this.search.ownerDocument.activeElement === this.search;
    if (!typing && this.search.value !== filter.text) this.search.value = filter.text;
    keyed(this.pinned, pinsOf(filter), ({ name, text }) => `${name}=${text}`, (pin) => this.pin(pin), () => {});
    show(this.clear, isFiltered(filter));
  }

  pin({ name, text, without }) {
    const drop = () => this.store.setFilter(without(this.store.ui.filter));
    return h("button", { type: "button", class: "nbq-chip nbq-pin", "aria-pressed": "true", title: `Not only this ${name}`, on: { click: drop } }, h("span", { class: "nbq-cut", text }), icon("close"));
  }
}

/** What a filter asks for that has no control of its own: statuses within a state, a fingerprint, a batch. */
function pinsOf(filter) {
  const statuses = filter.states.filter((word) => !STATES.includes(word)).map((text) =>
    ({ name: "status", text, without: ({ states }) => ({ states: states.filter((word) => word !== text) }) }));
  const whole = ["fingerprint", "batch"].filter((name) => filter[name] != null).map((name) =>
    ({ name, text: filter[name], without: () => ({ [name]: null }) }));
  return [...statuses, ...whole];
}

/** The choices of a select; a chosen one that is not among the names is one too. Values begin with "=", "" is all. */
function drawOptions(select, names, chosen) {
  const values = ["", ...new Set([...names, ...(chosen == null ? [] : [chosen])])];
  keyed(select, values, (value) => `=${value}`, (value) => h("option", { value: value && `=${value}`, text: value || select.nbqAll }), () => {});
  const value = chosen == null ? "" : `=${chosen}`;
  if (select.value !== value) select.value = value;
}
