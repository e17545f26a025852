// How numbers, times and texts read.

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const pad = (number) => String(number).padStart(2, "0");

/** Seconds as people say them, in at most seven characters: 34ms, 1.2s, 48s, 3m 07s, 2h 05m, 4d 3h. */
function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 0.0995) return `${Math.max(0, Math.round(seconds * 1000))}ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)}s`;
  return wholeDuration(seconds);
}

/** The same without fractions, for what counts up before one's eyes. */
function wholeDuration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${pad(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${pad(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${Math.floor((whole % 86400) / 3600)}h`;
}

/** A moment: the time alone if it was on the day of `now`. */
function moment(ms, now) {
  if (ms == null) return "";
  const at = new Date(ms);
  if (at.toDateString() === new Date(now).toDateString()) return timeOfDay(ms, true);
  return `${at.getDate()} ${MONTHS[at.getMonth()]} ${timeOfDay(ms, false)}`;
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
