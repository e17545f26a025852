// The page. Whatever a job says reaches it as a text node or an attribute, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Paths of the icons, drawn in a box of 16 by 16. */
const ICONS = {
  pause: "M5 3.5v9M11 3.5v9",
  play: "M5 3.2v9.6l7.5-4.8z",
  retry: "M13 8a5 5 0 1 1-1.6-3.7M13 2.5v3h-3",
  close: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  search: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.4 10.4L14 14",
  down: "M4 6.5l4 4 4-4",
  left: "M10 4l-4 4 4 4",
  right: "M6 4l4 4-4 4",
};

/**
 * An element with its attributes, listeners (`on`) and children; `text` is its text.
 * @param {string} tag @param {Object} [props] @param {...(Node|string|null)} children
 */
function h(tag, props = {}, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** The same for SVG. */
function s(tag, props = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), props, children);
}

function furnish(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (name === "text") {
      node.textContent = value;
    } else {
      attr(node, name, value);
    }
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** Set an attribute; null and false take it away. Nothing is written that is there already. */
function attr(node, name, value) {
  if (value == null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(node, shown) {
  if (node.hidden === shown) node.hidden = !shown;
}

function icon(name) {
  return s("svg", { class: "nbq-icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

const NODES = Symbol("nodes by key");

/**
 * Make a parent's children those of a list, one each, keeping the nodes of items that stay.
 * @template T
 * @param {Element} parent @param {T[]} items @param {(item: T) => string} keyOf
 * @param {(item: T) => Element} create @param {(node: Element, item: T) => void} update
 */
function keyed(parent, items, keyOf, create, update) {
  const before = parent[NODES] ?? new Map();
  const after = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const node = before.get(key) ?? create(item);
    before.delete(key);
    after.set(key, node);
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of before.values()) node.remove();
  parent[NODES] = after;
}

/** Call back once, when nobody has called for a while. */
function debounced(callback, milliseconds) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(callback, milliseconds, ...args);
  };
}

/** Whether what is around an element is dark: what the host says, else the colour behind it, else the system. */
function isDark(el) {
  const said = document.body.dataset.jpThemeLight;
  if (said) return said === "false";
  for (let node = el; node; node = node.parentElement) {
    const parts = getComputedStyle(node).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (parts?.length === 3 || parts?.[3] > 0.5) return 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2] < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Keep `data-theme` of an element right; gives back what ends that. */
function followTheme(el) {
  const look = () => attr(el, "data-theme", isDark(el.parentElement) ? "dark" : "light");
  const observer = new MutationObserver(look);
  for (const node of [document.body, document.documentElement]) {
    observer.observe(node, { attributes: true, attributeFilter: ["class", "style", "data-theme", "data-jp-theme-light"] });
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", look);
  look();
  return () => {
    observer.disconnect();
    system.removeEventListener("change", look);
  };
}
