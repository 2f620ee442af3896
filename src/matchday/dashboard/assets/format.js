// Numbers and times as text, in the reader's own language and time zone.

const whole = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const minute = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const month = new Intl.DateTimeFormat(undefined, { month: "short", year: "numeric" });
const full = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23",
});

export const timeZone = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "local time";

export const count = (value) => whole.format(value);

/** A measured number with four significant digits at most, never in exponent form. */
export function number(value) {
  const size = Math.abs(value);
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : 3;
  return value.toLocaleString(undefined, { maximumFractionDigits: digits });
}

const UNITS = { degC: "°C", degF: "°F", percent: "%", persons: "persons", "m/s": "m/s" };
export const unit = (symbol) => (symbol ? (UNITS[symbol] ?? symbol) : "");

/** A time of day; with the date when it is not today. */
export function instant(ms) {
  const moment = new Date(ms);
  const isToday = new Date().toDateString() === moment.toDateString();
  return (isToday ? clock : full).format(moment);
}

/** A duration in the one or two units that matter. */
export function duration(ms) {
  const s = Math.abs(ms) / 1000;
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A duration in whole units, for states that last. */
export function lasting(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}

/**
 * Labels of a time axis: each says what changes from one tick to the next, and the first
 * names the day where the span crosses one.
 */
export function tickLabels(splits, step) {
  const spansDays = splits.length > 1
    && new Date(splits[0] * 1000).toDateString() !== new Date(splits.at(-1) * 1000).toDateString();
  let lastDay = "";
  return splits.map((s) => {
    const moment = new Date(s * 1000);
    if (step >= 20 * 86400) return month.format(moment);
    if (step >= 86400) return day.format(moment);
    const text = (step < 60 ? clock : minute).format(moment);
    const today = day.format(moment);
    if (!spansDays || today === lastDay) return text;
    lastDay = today;
    return `${text}\n${today}`;
  });
}

const SUFFIXES = [
  [/_per_m2$/, "/m²"], [/_mps2$/, "m/s²"], [/_mps$/, "m/s"], [/_ms$/, "ms"], [/_m2$/, "m²"],
  [/_m$/, "m"], [/_s$/, "s"], [/_ratio$/, ""], [/_count$/, ""],
];

/** Split a finding's value name into words and unit: "speed_max_mps" -> ["speed max", "m/s"]. */
export function valueName(name) {
  for (const [pattern, symbol] of SUFFIXES) {
    if (pattern.test(name)) return [name.replace(pattern, "").replaceAll("_", " "), symbol];
  }
  return [name.replaceAll("_", " "), ""];
}
