// The form that dispatches a command, drawn from its specification. Python decides what is valid; what it says of a
// field is shown at the field.

/**
 * @typedef {{name: string, label: string, kind: string, required: boolean, default: *, help: string,
 *   choices: ?{value: string, label: string}[], nullable: boolean, free: boolean}} Field
 */

const INPUT_TYPES = { date: "date", datetime: "datetime-local" };
const WHOLE_SECONDS = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/;
const MODES = { int: "numeric", float: "decimal" };
const LONG_KINDS = new Set(["text", "json", "list"]);
const CODE_KINDS = new Set(["json", "list", "path"]);

class DispatchForm {
  constructor(store, uid) {
    this.store = store;
    this.uid = uid;
    this.title = h("h3", { class: "nbq-pane-title" });
    this.doc = h("p", { class: "nbq-faint nbq-doc" });
    this.fields = h("div", { class: "nbq-fields" });
    this.options = h("div", { class: "nbq-fields" });
    this.more = h("details", { class: "nbq-more", on: { toggle: () => { store.ui.moreOptions = this.more.open; } } }, h("summary", { text: "More options" }), this.options);
    this.estimate = h("span", { class: "nbq-faint" });
    this.loading = h("p", { class: "nbq-empty", text: "The form is on its way." });
    const close = plainButton({ title: "Close (Esc)", icon: "close", kind: "nbq-bare", press: () => store.closePane() });
    this.button = commandButton({ key: "dispatch", label: "Dispatch", kind: "nbq-primary", press: () => this.submit() });
    const submitted = (event) => { event.preventDefault(); if (!store.underWay.has("dispatch")) this.submit(); };
    this.form = h("form", { class: "nbq-pane-body nbq-form", novalidate: true, on: { submit: submitted } }, this.doc, this.loading, this.fields, this.more);
    this.foot = h("div", { class: "nbq-pane-foot" }, this.estimate, h("span", { class: "nbq-push" }), this.button);
    this.element = h("section", { class: "nbq-pane", "aria-label": "New job", hidden: true }, h("div", { class: "nbq-pane-head nbq-pane-line" }, this.title, h("span", { class: "nbq-push" }), close), this.form, this.foot);
  }

  /** @returns {?Object} the specification, once it is there */
  spec() {
    const { form } = this.store.state;
    return form?.command === this.store.ui.pane?.form ? form : null;
  }

  draw() {
    const command = this.store.ui.pane?.form;
    show(this.element, Boolean(command));
    if (!command) {
      this.drawn = null;
      return;
    }
    const spec = this.spec();
    say(this.title, spec?.title || command);
    show(this.loading, !spec);
    show(this.foot, Boolean(spec));
    show(this.more, Boolean(spec?.options.length));
    if (!spec) return;
    say(this.doc, spec.doc ?? "");
    say(this.estimate, spec.estimate ?? "");
    if (this.drawn !== command) this.build(spec);
    this.drawErrors(spec);
  }

  build(spec) {
    this.drawn = spec.command;
    const last = spec.values ?? {};
    this.fields.replaceChildren(...spec.fields.map((field) => this.field(field, field.name, field.name in last ? last[field.name] : field.default)));
    this.options.replaceChildren(...spec.options.map((field) => this.field(field, `options.${field.name}`, field.default)));
    this.more.open = this.store.ui.moreOptions;
    if (!spec.fields.length) this.fields.append(h("p", { class: "nbq-empty", text: "It takes no arguments." }));
    this.fields.querySelector("input, select, textarea")?.focus({ preventScroll: true });
  }

  /** What is being filled in survives the view: drafts are kept by command. */
  drafts() {
    const { drafts } = this.store.ui;
    drafts[this.drawn] ??= {};
    return drafts[this.drawn];
  }

  /** @param {Field} field */
  field(field, path, value) {
    const id = `${this.uid}-field-${path}`;
    const drafts = this.drafts();
    const text = shown(field, value);
    const input = inputFor(field, path in drafts ? drafts[path] : text, `${id}-choices`, inputType(field, text));
    for (const [name, value] of Object.entries({ id, "data-field": path, "aria-describedby": `${id}-help ${id}-error`, "aria-required": field.required ? "true" : null })) attr(input, name, value);
    const keep = () => { drafts[path] = draft(input); };
    input.addEventListener("input", keep);
    input.addEventListener("change", keep);
    const mark = field.required ? h("span", { class: "nbq-required", text: "needed" }) : null;
    const label = h("label", { for: id }, field.label || field.name, mark);
    const help = h("div", { class: "nbq-faint nbq-help", id: `${id}-help`, text: field.help ?? "" });
    const error = h("div", { class: "nbq-field-error", id: `${id}-error`, role: "alert" });
    const parts = input.type === "checkbox" ? [h("div", { class: "nbq-check" }, input, label)] : [label, input, suggestions(field, `${id}-choices`)];
    return h("div", { class: "nbq-field" }, ...parts, help, error);
  }

  drawErrors(spec) {
    const { errors } = this.store.ui;
    let first = null;
    for (const input of this.form.querySelectorAll("[data-field]")) {
      const path = input.dataset.field;
      const text = errors[path] ?? "";
      attr(input, "aria-invalid", text ? "true" : null);
      say(document.getElementById(`${input.id}-error`) ?? input.closest(".nbq-field").lastChild, text);
      if (text) first ??= input;
    }
    if (first && this.errorsShown !== errors) {
      if (spec.options.some((field) => `options.${field.name}` === first.dataset.field)) this.more.open = true;
      first.focus({ preventScroll: true });
      first.closest(".nbq-field").scrollIntoView({ block: "nearest" });
    }
    this.errorsShown = errors;
  }

  submit() {
    const spec = this.spec();
    if (!spec) return;
    const values = this.read(spec.fields, "");
    const options = this.read(spec.options, "options.");
    this.store.send("dispatch", { command: spec.command, values, options }, "dispatch");
  }

  /** @param {Field[]} fields */
  read(fields, prefix) {
    const values = {};
    for (const field of fields) {
      const input = [...this.form.querySelectorAll("[data-field]")].find((node) => node.dataset.field === prefix + field.name);
      values[field.name] = plain(field, input);
    }
    return values;
  }
}

/** @param {Field} field */
function inputFor(field, value, choicesId, type) {
  if (field.kind === "bool" && !field.nullable) {
    const box = h("input", { type: "checkbox" });
    box.checked = value === true || value === "true";
    return box;
  }
  if (hasOptions(field)) return choiceFor(field, value);
  const code = CODE_KINDS.has(field.kind) ? " nbq-code" : "";
  const input = LONG_KINDS.has(field.kind)
    ? h("textarea", { class: `nbq-input${code}`, rows: 3, spellcheck: code ? "false" : null })
    : h("input", { class: `nbq-input${code}`, type, inputmode: MODES[field.kind], step: type === "datetime-local" ? 1 : null, autocomplete: "off" });
  input.value = value;
  if (field.free) attr(input, "list", choicesId);
  if (field.nullable) attr(input, "placeholder", "none");
  return input;
}

/** The browser's own control knows no zones and no part of a second: such a time is a text, so that it stays what it is. */
function inputType(field, text) {
  return field.kind === "datetime" && text && !WHOLE_SECONDS.test(text) ? "text" : INPUT_TYPES[field.kind] ?? "text";
}

/** Whether it is picked from a list, and from nothing else. */
const hasOptions = (field) => field.kind === "bool" || (field.choices && !field.free);
const YES_OR_NO = [{ value: true, label: "yes" }, { value: false, label: "no" }];
const choicesOf = (field) => (field.kind === "bool" ? YES_OR_NO : field.choices);

/** The options' values are the places of the choices: a choice may be an empty text, too. */
function choiceFor(field, value) {
  const choices = choicesOf(field);
  const drafted = typeof value === "object" ? value.place : null;
  const place = drafted ?? String(choices.findIndex((choice) => choice.value === value));
  const unset = field.nullable || !(place in choices) ? [h("option", { value: "", text: field.nullable ? "none" : "choose" })] : [];
  const select = h("select", { class: "nbq-input" }, ...unset, ...choices.map((choice, index) => h("option", { value: index, text: choice.label })));
  select.value = place in choices ? place : "";
  return select;
}

function suggestions(field, id) {
  if (!field.free || !field.choices) return null;
  return h("datalist", { id }, ...field.choices.map((choice) => h("option", { value: choice.value })));
}

/** What has been filled in, to be filled in again in a new view. */
function draft(input) {
  if (input.type === "checkbox") return input.checked;
  return input.localName === "select" ? { place: input.value } : input.value;
}

/** A plain value as an input shows it. */
function shown(field, value) {
  if (value == null) return "";
  if (hasOptions(field)) return value;
  if (field.kind === "datetime") return String(value).replace(" ", "T");
  if (Array.isArray(value)) return lines(value);
  return typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
}

/** A list is written one item a line, or as JSON where a line could not hold one. */
function lines(items) {
  const fit = items.every((item) => typeof item !== "object" && /^\s*[^\s[].*$/.test(String(item)));
  return fit ? items.join("\n") : JSON.stringify(items);
}

/** What an input holds, as plain data. Numbers travel as they were written: Python reads them, exactly. */
function plain(field, input) {
  if (input.type === "checkbox") return input.checked;
  if (input.value === "" && field.nullable) return null;
  if (!hasOptions(field)) return input.value;
  return input.value === "" ? "" : choicesOf(field)[Number(input.value)].value;
}
