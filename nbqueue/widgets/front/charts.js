// Two small live charts: what ended in each stretch of time, and how much waits.

const CHART = { height: 96, left: 34, right: 4, top: 6, bottom: 18 };
/** So many stretches are drawn at least, that a young queue's bars are not as wide as the chart. */
const STRETCHES_MIN = 30;

/** The smallest round number that is not below. */
function roundUp(number) {
  if (number <= 4) return Math.max(1, number);
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((step) => step >= number);
}

class Chart {
  /**
   * @param {Store} store
   * @param {{title: string, names: string[], stacked: boolean, essence: (series: Object, span: string) => string,
   *   numbers: (series: Object) => Object<string, number>}} kind
   */
  constructor(store, kind) {
    this.store = store;
    this.kind = kind;
    this.width = 0;
    this.legend = h("span", { class: "nbq-legend" });
    this.marks = kind.names.map((name) => s("path", { class: `nbq-mark nbq-mark-${name}` }));
    this.open = kind.names.map((name) => s("path", { class: `nbq-mark nbq-mark-${name} nbq-open` }));
    this.grid = s("path", { class: "nbq-gridline" });
    this.guide = s("path", { class: "nbq-guide" });
    this.labels = ["end", "end", "start", "end"].map((anchor) => s("text", { "text-anchor": anchor }));
    this.svg = s("svg", { class: "nbq-chart", role: "img", height: CHART.height }, this.grid, this.guide, ...this.marks, ...this.open, ...this.labels);
    this.tip = h("div", { class: "nbq-tip", "aria-hidden": "true", hidden: true });
    this.place = h("div", { class: "nbq-chart-place", on: { pointermove: (event) => this.point(event), pointerleave: () => this.unpoint() } }, this.svg, this.tip);
    this.element = h("section", { class: "nbq-card", "aria-label": kind.title }, h("div", { class: "nbq-chart-head" }, h("h3", { text: kind.title }), this.legend), this.place);
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.place);
  }

  resize() {
    if (this.place.clientWidth === this.width) return;
    this.width = this.place.clientWidth;
    attr(this.svg, "width", this.width);
    this.draw();
  }

  dispose() {
    this.observer.disconnect();
  }

  draw() {
    const { series } = this.store.state;
    const { kind } = this;
    if (!series || this.width < 60) return;
    const columns = kind.names.map((name) => series[name]);
    const length = columns[0].length;
    this.slots = Math.max(length, STRETCHES_MIN);
    this.first = this.slots - length;
    this.step = (this.width - CHART.left - CHART.right) / this.slots;
    this.top = roundUp(Math.max(1, ...stackedTops(columns, kind.stacked)));
    const cut = kind.stacked ? length - 1 : length;
    const bases = new Array(length).fill(0);
    kind.names.forEach((name, place) => {
      const path = (from, to) => (kind.stacked ? this.bars(columns[place], bases, from, to) : this.line(columns[place]));
      attr(this.marks[place], "d", path(0, cut));
      attr(this.open[place], "d", kind.stacked ? path(cut, length) : "");
      columns[place].forEach((value, index) => { bases[index] += value; });
    });
    this.drawAxes(series, length);
    this.drawEssence(series, length);
  }

  x(index) {
    return CHART.left + (this.first + index) * this.step;
  }

  y(value) {
    return CHART.height - CHART.bottom - (value / this.top) * (CHART.height - CHART.bottom - CHART.top);
  }

  bars(values, bases, from, to) {
    const width = Math.max(1, this.step - (this.step > 4 ? 1.5 : 0.5)).toFixed(1);
    let path = "";
    for (let index = from; index < to; index += 1) {
      if (!values[index]) continue;
      const [x, low, high] = [this.x(index), this.y(bases[index]), this.y(bases[index] + values[index])];
      path += `M${x.toFixed(1)} ${low.toFixed(1)}V${Math.min(high, low - 1).toFixed(1)}h${width}V${low.toFixed(1)}z`;
    }
    return path;
  }

  line(values) {
    return values.map((value, index) => `${index ? "L" : "M"}${(this.x(index) + this.step / 2).toFixed(1)} ${this.y(value).toFixed(1)}`).join("");
  }

  drawAxes(series, length) {
    const [highest, zero, start, end] = this.labels;
    const ends = series.start + length * series.step * 1000;
    const begins = ends - this.slots * series.step * 1000;
    const right = this.width - CHART.right;
    attr(this.grid, "d", [0, this.top / 2, this.top].map((value) => `M${CHART.left} ${Math.round(this.y(value)) + 0.5}H${right}`).join(""));
    const texts = [
      [highest, CHART.left - 5, this.y(this.top) + 6, count(this.top)],
      [zero, CHART.left - 5, this.y(0) + 2, "0"],
      [start, CHART.left, CHART.height - 4, timeOfDay(begins, series.step < 10)],
      [end, right, CHART.height - 4, timeOfDay(Math.min(ends, this.store.now()), series.step < 10)],
    ];
    for (const [node, x, y, text] of texts) {
      attr(node, "x", x);
      attr(node, "y", y);
      say(node, text);
    }
  }

  drawEssence(series, length) {
    const numbers = Object.entries(this.kind.numbers(series));
    keyed(this.legend, numbers, ([name]) => name, ([name]) => h("span", { class: `nbq-key nbq-key-${name}` }), (node, [name, value]) => say(node, `${count(value)} ${name}`));
    attr(this.svg, "aria-label", this.kind.essence(series, wholeDuration(length * series.step)));
  }

  point(event) {
    const { series } = this.store.state;
    const { kind } = this;
    const x = event.clientX - this.place.getBoundingClientRect().left;
    const index = Math.floor((x - CHART.left) / this.step) - this.first;
    if (!series || !(index >= 0 && index < series[kind.names[0]].length)) return this.unpoint();
    const from = series.start + index * series.step * 1000;
    const numbers = kind.names.map((name) => h("span", { class: `nbq-key nbq-key-${name}`, text: `${count(series[name][index])} ${name}` }));
    this.tip.replaceChildren(h("span", { class: "nbq-faint", text: `${timeOfDay(from, true)} – ${timeOfDay(from + series.step * 1000, true)}` }), ...numbers);
    show(this.tip, true);
    const middle = this.x(index) + this.step / 2;
    const room = this.width - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, middle < room ? middle + 8 : middle - this.tip.offsetWidth - 8))}px`;
    attr(this.guide, "d", `M${middle.toFixed(1)} ${CHART.top}V${CHART.height - CHART.bottom}`);
  }

  unpoint() {
    show(this.tip, false);
    attr(this.guide, "d", "");
  }
}

function stackedTops(columns, stacked) {
  if (!stacked) return columns.flat();
  return columns[0].map((_, index) => columns.reduce((sum, column) => sum + column[index], 0));
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

const THROUGHPUT = {
  title: "Throughput",
  names: ["succeeded", "failed"],
  stacked: true,
  numbers: (series) => ({ succeeded: sum(series.succeeded), failed: sum(series.failed) }),
  essence: (series, span) => `In the last ${span} ${count(sum(series.succeeded))} jobs succeeded and ${count(sum(series.failed))} failed.`,
};

const BACKLOG = {
  title: "Backlog",
  names: ["pending", "running"],
  stacked: false,
  numbers: (series) => ({ pending: series.pending.at(-1) ?? 0, running: series.running.at(-1) ?? 0 }),
  essence: (series, span) => {
    const { pending, running } = BACKLOG.numbers(series);
    return `${count(pending)} jobs pending and ${count(running)} running now; ${count(Math.max(0, ...series.pending))} pending at most in the last ${span}.`;
  },
};
