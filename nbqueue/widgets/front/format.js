// How numbers, times and texts read.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const pad = (number) => String(number).padStart(2, "0");

/** A number and its unit, a thin space apart that does not break. */
const quantity = (number, unit) => `${number}\u202f${unit}`;

/** Seconds as people say them, shortly: <1 ms, 34 ms, 1.2 s, 48 s, 3 m 07 s, 2 h 05 m, 4 d 3 h. */
function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 0.0005) return quantity("<1", "ms");
  if (seconds < 0.0995) return quantity(Math.round(seconds * 1000), "ms");
  if (seconds < 9.95) return quantity(seconds.toFixed(1), "s");
  return wholeDuration(seconds);
}

/** The same without fractions, for what counts up before one's eyes. */
function wholeDuration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return quantity(whole, "s");
  if (whole < 3600) return `${quantity(Math.floor(whole / 60), "m")} ${quantity(pad(whole % 60), "s")}`;
  if (whole < 86400) return `${quantity(Math.floor(whole / 3600), "h")} ${quantity(pad(Math.floor((whole % 3600) / 60)), "m")}`;
  return `${quantity(Math.floor(whole / 86400), "d")} ${quantity(Math.floor((whole % 86400) / 3600), "h")}`;
}

/** A moment: the time alone if it was on the day of `now`, the day alone if it was in another year. */
function moment(ms, now) {
  if (ms == null) return "";
  const [at, today] = [new Date(ms), new Date(now)];
  if (at.toDateString() === today.toDateString()) return timeOfDay(ms, true);
  const day = `${at.getDate()} ${MONTHS[at.getMonth()]}`;
  return at.getFullYear() === today.getFullYear() ? `${day} ${timeOfDay(ms, false)}` : `${day} ${at.getFullYear()}`;
}

function timeOfDay(ms, seconds) {
  const at = new Date(ms);
  return `${pad(at.getHours())}:${pad(at.getMinutes())}${seconds ? `:${pad(at.getSeconds())}` : ""}`;
}

/** A moment in full, for a title. */
function exactly(ms) {
  return ms == null ? "" : new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
}

const count = (number) => (number ?? 0).toLocaleString("en");

const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** What a terminal would have taken as colours and movements is left out. */
function withoutEscapes(text) {
  // eslint-disable-next-line no-control-regex
  return text.replace(/\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007]*\u0007/g, "");
}

function fileName(path) {
  return path.split(/[\\/]/).pop() || path;
}
