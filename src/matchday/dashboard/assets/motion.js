// Where every object is between two readings: smooth at any frame rate, true at each reading.
//
// The page draws a little in the past. Per source, a line through the last arrivals tells how
// event time runs against this machine's clock (a replay at 4x runs four times as fast), and
// positions are interpolated at that event time minus a delay of a few readings.

const ARRIVALS_MAX = 50;
const SAMPLES_MAX = 100;
const DELAY_MS_MIN = 100;
const DELAY_MS_MAX = 1500;
const EXPIRY_MS = 3000;
const TRAIL_MS = 2500;

class SourceClock {
  constructor() {
    this.arrivals = [];
  }

  note(tMs, nowMs) {
    const last = this.arrivals.at(-1);
    if (last && tMs <= last.tMs) return;
    this.arrivals.push({ tMs, nowMs });
    if (this.arrivals.length > ARRIVALS_MAX) this.arrivals.shift();
    const first = this.arrivals[0];
    const n = this.arrivals.length;
    const spanMs = nowMs - first.nowMs;
    this.rate = n > 4 && spanMs > 150 ? (tMs - first.tMs) / spanMs : 1;
    this.meanNow = this.arrivals.reduce((sum, a) => sum + a.nowMs - first.nowMs, 0) / n + first.nowMs;
    this.meanT = this.arrivals.reduce((sum, a) => sum + a.tMs - first.tMs, 0) / n + first.tMs;
    const stepMs = n > 1 ? spanMs / (n - 1) : 40;
    this.delayMs = Math.min(DELAY_MS_MAX, Math.max(DELAY_MS_MIN, 2 * stepMs + 30));
  }

  /** Event time to draw at. */
  playhead(nowMs) {
    return this.meanT + this.rate * (nowMs - this.delayMs - this.meanNow);
  }
}

export class Motion {
  constructor() {
    this.clear();
  }

  clear() {
    this.sources = new Map();
    this.objects = new Map();
  }

  /** Take the frames of a positions message, arrived at `nowMs` (performance.now). */
  take(frames, nowMs) {
    for (const frame of frames) {
      let source = this.sources.get(frame.source);
      if (!source || source.session !== frame.session) {
        for (const [key, object] of this.objects) {
          if (object.source === source) this.objects.delete(key);
        }
        source = { session: frame.session, clock: new SourceClock() };
        this.sources.set(frame.source, source);
      }
      source.clock.note(frame.t_ms, nowMs);
      for (const [id, x, y, team] of frame.objects) this.#sample(frame, source, id, x, y, team, nowMs);
    }
  }

  #sample(frame, source, id, x, y, team, nowMs) {
    const key = `${frame.source}\n${id}`;
    let object = this.objects.get(key);
    if (!object) {
      object = { key, id, team, source, isBall: team === "ball" || id.toLowerCase() === "ball", samples: [] };
      this.objects.set(key, object);
    }
    const { samples } = object;
    if (samples.length && samples.at(-1).tMs >= frame.t_ms) samples.length = 0;
    samples.push({ tMs: frame.t_ms, x, y });
    if (samples.length > (object.isBall ? SAMPLES_MAX : 24)) samples.shift();
    object.seenMs = nowMs;
    object.team = team;
  }

  /** Forget the objects that are not seen any more. */
  forget(nowMs) {
    for (const [key, object] of this.objects) {
      if (nowMs - object.seenMs > EXPIRY_MS) this.objects.delete(key);
    }
  }

  /** Give all objects with `x`, `y` (metres) at this moment; forgets as `forget` does. */
  at(nowMs, { interpolate = true } = {}) {
    this.forget(nowMs);
    for (const object of this.objects.values()) {
      place(object, interpolate ? object.source.clock.playhead(nowMs) : Infinity);
    }
    return [...this.objects.values()];
  }

  /** Give the object's past points up to what is drawn now, oldest first. */
  static trail(object, nowMs) {
    const tMs = object.source.clock.playhead(nowMs);
    const fromMs = tMs - TRAIL_MS * Math.max(1, object.source.clock.rate);
    return [...object.samples.filter((s) => s.tMs >= fromMs && s.tMs <= tMs), object];
  }
}

function place(object, tMs) {
  const { samples } = object;
  let i = samples.length - 1;
  while (i > 0 && samples[i].tMs > tMs) i -= 1;
  const a = samples[i];
  const b = samples[i + 1];
  if (!b || tMs <= a.tMs) {
    object.x = a.x;
    object.y = a.y;
    return;
  }
  const share = Math.min(1, (tMs - a.tMs) / (b.tMs - a.tMs));
  object.x = a.x + (b.x - a.x) * share;
  object.y = a.y + (b.y - a.y) * share;
}
