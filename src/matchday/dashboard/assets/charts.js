// A wall of charts, one per measured series: value, forecast and band.
//
// uPlot comes as a plain script (vendor/) and is found as a global.

import { arrange, byId, h, setAttribute, setText, themeColour } from "./dom.js";
import { count, instant, number, tickLabels, unit } from "./format.js";

const POINTS_MAX = 300;
const CARDS_MAX = 60;
const CARDS_KEPT_MAX = 1000;
const HEIGHT_PX = 168;

/** The points of one series: rows of [t, value, lower, upper, forecast], by time. */
class Points {
  constructor() {
    this.rows = [];
  }

  set(tMs, fields) {
    let i = this.rows.length;
    while (i > 0 && this.rows[i - 1].t > tMs) i -= 1;
    if (i > 0 && this.rows[i - 1].t === tMs) Object.assign(this.rows[i - 1], fields);
    else this.rows.splice(i, 0, { t: tMs, ...fields });
    if (this.rows.length > POINTS_MAX) this.rows.splice(0, this.rows.length - POINTS_MAX);
  }

  get columns() {
    const column = (name) => this.rows.map((row) => row[name] ?? null);
    return [this.rows.map((row) => row.t / 1000), column("value"), column("lower"), column("upper"), column("forecast")];
  }
}

class Card {
  constructor(series) {
    this.series = series;
    this.points = new Points();
    this.isVisible = false;
    this.isDirty = true;
    this.seenCount = 0;
    this.plot = null;
    this.value = h("strong");
    this.unit = h("span", { class: "unit" });
    this.state = h("span", { class: "chip" });
    this.readout = h("p", { class: "readout" });
    this.canvas = h("div", { class: "plot", role: "img" });
    const place = series.zone ? ` · ${series.zone}` : "";
    this.element = h(
      "article", { class: "card", "data-series": series.key },
      h("header", {},
        h("h3", {}, series.source, h("span", { class: "quantity" }, `${series.quantity.replaceAll("_", " ")}${place}`)),
        h("p", { class: "now" }, this.value, this.unit)),
      this.canvas, h("footer", {}, this.readout, this.state),
    );
  }

  take(series) {
    this.series = series;
    this.points.set(series.t_ms, { value: series.value });
    this.seenCount = series.count;
    this.isDirty = true;
  }

  takeForecast(forecast) {
    this.points.set(forecast.t_ms, {
      forecast: forecast.yhat, lower: forecast.yhat_lower, upper: forecast.yhat_upper,
    });
    this.model = forecast.model;
    this.isDirty = true;
  }

  takeHistory(history) {
    for (const [t, value] of history.values) this.points.set(t, { value });
    for (const [t, forecast, lower, upper] of history.forecasts) this.points.set(t, { forecast, lower, upper });
    this.storedCount = history.values.length;
    this.isDirty = true;
  }

  draw() {
    this.isDirty = false;
    const { series } = this;
    setText(this.value, number(series.value));
    setText(this.unit, series.unit ? ` ${unit(series.unit)}` : "");
    this.#state();
    const columns = this.points.columns;
    if (this.plot) this.plot.setData(columns);
    else this.#makePlot(columns);
    setAttribute(this.canvas, "aria-label",
      `Chart of ${series.source} ${series.quantity}, ${columns[0].length} points; now ${number(series.value)} ${unit(series.unit)}`);
  }

  #state() {
    const latest = this.points.rows.findLast((row) => isNumber(row.forecast) && isNumber(row.value));
    const anyForecast = latest ?? this.points.rows.findLast((row) => isNumber(row.forecast));
    if (!anyForecast) {
      const seen = Math.max(this.seenCount, this.storedCount ?? 0);
      this.#chip("learning", "learning");
      setText(this.readout, `No forecast yet: ${count(seen)} reading${seen === 1 ? "" : "s"} seen`);
      return;
    }
    const hasBand = isNumber(anyForecast.lower) && isNumber(anyForecast.upper);
    const isInside = !latest || !hasBand || (latest.value >= latest.lower && latest.value <= latest.upper);
    this.#chip(isInside ? "inside" : "outside", isInside ? "within band" : "▲ outside band");
    const band = hasBand ? ` (${number(anyForecast.lower)} to ${number(anyForecast.upper)})` : "";
    if (!this.isHovered) setText(this.readout, `Forecast ${number(anyForecast.forecast)}${band}`);
    this.element.title = `Model ${this.model ?? "stored"}`;
  }

  #chip(kind, text) {
    setAttribute(this.state, "class", `chip ${kind}`);
    setText(this.state, text);
  }

  #makePlot(columns) {
    const line = themeColour("--series");
    const guess = themeColour("--forecast");
    const band = themeColour("--band");
    const text = themeColour("--muted");
    const grid = themeColour("--line");
    const axis = {
      stroke: text, font: "12px system-ui, sans-serif",
      grid: { stroke: grid, width: 1 }, ticks: { show: false },
    };
    this.plot = new uPlot(
      {
        width: Math.max(120, this.canvas.clientWidth), height: HEIGHT_PX,
        legend: { show: false }, cursor: { y: false, drag: { x: false, y: false } },
        scales: {
          x: { range: (plot) => spanned(plot.data[0]) },
          y: { range: (plot, low, high) => padded(low, high) },
        },
        axes: [
          { ...axis, space: 84, size: 40, values: (plot, splits, i, space, step) => tickLabels(splits, step) },
          { ...axis, size: 52, space: 34 },
        ],
        series: [
          {},
          { stroke: line, width: 1.75, spanGaps: true, points: { show: (plot) => plot.data[0].length < 40, size: 4, fill: line } },
          { stroke: "transparent", spanGaps: true, points: { show: false } },
          { stroke: "transparent", spanGaps: true, points: { show: false } },
          { stroke: guess, width: 1.5, dash: [5, 4], spanGaps: true, points: { show: false } },
        ],
        bands: [{ series: [3, 2], fill: band }],
        hooks: { setCursor: [(plot) => this.#hover(plot)] },
      },
      columns, this.canvas,
    );
  }

  #hover(plot) {
    const row = this.points.rows[plot.cursor.idx ?? -1];
    this.isHovered = Boolean(row) && plot.cursor.left >= 0;
    if (!this.isHovered) return;
    const parts = [instant(row.t)];
    if (isNumber(row.value)) parts.push(`measured ${number(row.value)}`);
    if (isNumber(row.forecast)) parts.push(`forecast ${number(row.forecast)}`);
    setText(this.readout, parts.join(" · "));
  }

  resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT_PX });
  }

  /** Colours belong to the theme: the next drawing makes the chart anew. */
  forgetPlot() {
    this.plot?.destroy();
    this.plot = null;
    this.isDirty = true;
  }
}

const isNumber = (value) => typeof value === "number";

/** From the first to the last time, seconds; a single one stands in the middle of a minute. */
function spanned(times) {
  return times.length === 1 ? [times[0] - 30, times[0] + 30] : [times[0], times.at(-1)];
}

/** A range with air above and below; a flat line gets some too. */
function padded(low, high) {
  if (!isNumber(low) || !isNumber(high)) return [0, 1];
  const air = (high - low) * 0.12 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

export class ChartWall {
  constructor() {
    this.wall = byId("wall");
    this.filter = byId("filter");
    this.note = byId("wall-note");
    this.cards = new Map();
    this.visibility = new IntersectionObserver((entries) => this.#seen(entries), { rootMargin: "200px" });
    this.sizes = new ResizeObserver(() => this.cards.forEach((card) => card.resize()));
    this.sizes.observe(this.wall);
    this.filter.addEventListener("input", () => this.#arrange());
    document.documentElement.addEventListener("themechange", () => {
      this.cards.forEach((card) => card.forgetPlot());
      this.draw();
    });
  }

  take(series, forecasts) {
    let isNew = false;
    for (const one of series) {
      let card = this.cards.get(one.key);
      if (!card) {
        card = new Card(one);
        card.element.card = card;
        this.visibility.observe(card.element);
        isNew = true;
      }
      // Set anew, so that the first one is the one heard longest ago.
      this.cards.delete(one.key);
      this.cards.set(one.key, card);
      card.take(one);
    }
    for (const forecast of forecasts) this.#cardOf(forecast)?.takeForecast(forecast);
    if (isNew) {
      this.#forget();
      this.#arrange();
    }
    this.draw();
  }

  /** Forget the series heard longest ago, for pages that stay open for weeks. */
  #forget() {
    for (const [key, card] of this.cards) {
      if (this.cards.size <= CARDS_KEPT_MAX) return;
      this.visibility.unobserve(card.element);
      card.forgetPlot();
      this.cards.delete(key);
    }
  }

  draw() {
    for (const card of this.cards.values()) if (card.isDirty && card.isVisible) card.draw();
  }

  /** A forecast names its series, or only its source as the original's did. */
  #cardOf(forecast) {
    const direct = this.cards.get(forecast.subject);
    if (direct) return direct;
    for (const card of this.cards.values()) {
      const { source, quantity } = card.series;
      if (forecast.subject === `${source}/${quantity}` || forecast.subject === source) return card;
    }
    return undefined;
  }

  #arrange() {
    const wanted = this.filter.value.trim().toLowerCase();
    const found = [...this.cards.values()]
      .filter((card) => card.series.key.toLowerCase().includes(wanted))
      .sort((a, b) => a.series.key.localeCompare(b.series.key, undefined, { numeric: true }));
    arrange(this.wall, found.slice(0, CARDS_MAX).map((card) => card.element));
    byId("wall-empty").hidden = this.cards.size > 0;
    byId("wall-filter").hidden = this.cards.size < 7;
    const more = found.length > CARDS_MAX ? `; the first ${CARDS_MAX} are shown, filter to see others` : "";
    setText(this.note, this.cards.size ? `${count(found.length)} series${more}` : "");
  }

  #seen(entries) {
    for (const { target, isIntersecting } of entries) {
      target.card.isVisible = isIntersecting;
      if (isIntersecting && !target.card.asked) this.#askHistory(target.card);
    }
    this.draw();
  }

  async #askHistory(card) {
    card.asked = true;
    const { source, quantity, zone } = card.series;
    const query = new URLSearchParams({ source, quantity, limit: String(POINTS_MAX) });
    if (zone) query.set("zone", zone);
    try {
      const answer = await fetch(`/api/v1/history?${query}`);
      if (answer.ok) card.takeHistory(await answer.json());
    } catch {
      card.asked = false; // the server is away; asked again when the card is seen again
    }
    this.draw();
  }
}
