// Controls that every part of the panel uses. A button that gives a command shows what becomes of it.

/**
 * A button that gives a command: `key` names it, so that a drawn-again button finds its command under way.
 * @param {{key: string, label: string, title?: string, icon?: string, kind?: string, press: () => void}} button
 */
function commandButton({ key, label, title, icon: picture, kind = "", press }) {
  const text = h("span", { class: "nbq-button-text", text: label });
  const button = h("button", { type: "button", class: `nbq-button ${kind}`, "data-key": key, title, on: { click: pressed } },
    picture ? icon(picture) : null, text);
  button.nbqLabel = label;
  function pressed(event) {
    event.stopPropagation();
    if (button.getAttribute("aria-disabled") !== "true") press(event);
  }
  return button;
}

/** Show on every button under `root` what became of its command. */
function drawButtons(root, store) {
  for (const button of root.querySelectorAll("button[data-key]")) {
    const phase = store.underWay.get(button.dataset.key)?.phase;
    attr(button, "data-phase", phase ?? null);
    attr(button, "aria-disabled", phase || store.closed ? "true" : null);
    attr(button, "aria-busy", phase ? "true" : null);
    const text = phase === "waiting" ? "waiting for the kernel" : button.nbqLabel;
    say(button.querySelector(".nbq-button-text"), text);
    // A button that is a picture has its name from its title.
    if (!button.nbqLabel) attr(button, "aria-label", text || button.title);
  }
}

/** A plain button, for what happens in the page alone. */
function plainButton({ label, title, icon: picture, kind = "", press, ...attributes }) {
  const bare = kind.includes("nbq-bare");
  return h("button", { type: "button", class: `nbq-button ${kind}`, title, "aria-label": bare ? title : null, on: { click: press }, ...attributes },
    picture ? icon(picture) : null, bare ? null : h("span", { class: "nbq-button-text", text: label }));
}

/** The state of a job as a word on its colour. */
function badge() {
  return h("span", { class: "nbq-badge" });
}

function drawBadge(node, row) {
  attr(node, "data-state", row.state);
  attr(node, "data-status", row.status);
  say(node, row.status || row.state);
}

/** A progress bar, for a total that may not be known. */
function progressBar() {
  return h("span", { class: "nbq-bar", role: "progressbar", "aria-valuemin": 0 }, h("span", { class: "nbq-bar-fill" }));
}

/** @param {Progress} progress */
function drawProgress(bar, progress, name) {
  const known = progress.total > 0;
  attr(bar, "aria-label", `progress of ${name}`);
  attr(bar, "aria-valuemax", known ? progress.total : null);
  attr(bar, "aria-valuenow", known ? progress.done : null);
  attr(bar, "data-unknown", !known);
  bar.firstChild.style.width = known ? `${Math.min(100, (100 * progress.done) / progress.total)}%` : "";
}

function progressText(progress) {
  const { done, total, note } = progress;
  const numbers = total > 0 ? `${count(done)}/${count(total)}` : count(done);
  return note ? `${numbers} · ${note}` : numbers;
}

/** How long since `since`, drawn on by `tick`: what runs counts up without the kernel saying so. */
function ticking(node, since) {
  attr(node, "data-since", since ?? null);
}

function drawTicking(root, now) {
  for (const node of root.querySelectorAll("[data-since]")) drawTick(node, now);
}

function drawTick(node, now) {
  const seconds = (now - Number(node.dataset.since)) / 1000;
  say(node, seconds < 0 ? `in ${wholeDuration(-seconds)}` : wholeDuration(seconds));
}

/**
 * A button with a menu below it.
 * @param {{label: string, items: () => {label: string, press: () => void}[]}} menu
 */
function menuButton({ label, icon: picture, kind, items }) {
  const list = h("div", { class: "nbq-menu", role: "menu", "aria-label": label, hidden: true, on: { keydown: moved, focusout: left } });
  const button = plainButton({ label, icon: picture, kind, press: () => (list.hidden ? open() : close()), "aria-haspopup": "menu", "aria-expanded": "false" });
  button.append(icon("down"));

  function open() {
    list.replaceChildren(...items().map(({ label: text, press }) =>
      h("button", { type: "button", class: "nbq-menu-item", role: "menuitem", tabindex: -1, text, on: { click: () => (close(), press()) } })));
    show(list, true);
    attr(button, "aria-expanded", "true");
    list.firstChild?.focus();
  }
  function close() {
    show(list, false);
    attr(button, "aria-expanded", "false");
    button.focus();
  }
  function moved(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") close();
    else if (step) around(step).focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  function around(step) {
    const all = [...list.children];
    return all[(all.indexOf(list.ownerDocument.activeElement) + step + all.length) % all.length];
  }
  function left(event) {
    if (list.contains(event.relatedTarget) || event.relatedTarget === button) return;
    show(list, false);
    attr(button, "aria-expanded", "false");
  }
  return h("div", { class: "nbq-menu-place" }, button, list);
}
