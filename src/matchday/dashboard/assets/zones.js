// The list of zones beside the detail drawing: density in figures, words and colour.

import { arrange, h, setAttribute, setText } from "./dom.js";
import { DENSITY_MAX, densityColour, levelOf } from "./density.js";
import { count, instant, number } from "./format.js";
import { densityOf } from "./pitch.js";

export class ZoneList {
  constructor(list) {
    this.list = list;
    this.rows = new Map();
  }

  show(venue) {
    this.venue = venue;
    this.rows.clear();
    arrange(this.list, []);
  }

  update(zones) {
    const byId = new Map(zones.map((zone) => [zone.zone, zone]));
    arrange(this.list, this.venue.zones.map((zone) => this.#row(zone, byId.get(zone.id))));
  }

  #row(zone, state) {
    let row = this.rows.get(zone.id);
    if (!row) {
      row = makeRow(zone);
      this.rows.set(zone.id, row);
    }
    const density = densityOf(state);
    const isProvisional = state?.basis === "positions";
    setText(row.density, density === null ? "–" : density.toFixed(2));
    setText(row.level, density === null ? "no data" : levelOf(density));
    row.swatch.style.background = density === null ? "transparent" : densityColour(density);
    row.fill.style.width = `${Math.min(100, ((density ?? 0) / DENSITY_MAX) * 100)}%`;
    row.fill.style.background = row.swatch.style.background;
    const capacity = zone.capacity ? ` of ${count(zone.capacity)}` : "";
    setText(row.persons, state?.persons === null || state?.persons === undefined
      ? "nobody counts here yet"
      : `${state.persons > (zone.capacity ?? Infinity) ? "▲ " : ""}${number(state.persons)}${capacity} persons`);
    row.persons.classList.toggle("alarming", Boolean(zone.capacity) && state?.persons > zone.capacity);
    row.provisional.hidden = !isProvisional;
    setText(row.window, windowText(state?.window));
    setAttribute(row.element, "data-zone", zone.id);
    return row.element;
  }
}

function windowText(found) {
  if (!found) return "";
  const seconds = (found.end_ms - found.start_ms) / 1000;
  const span = seconds > 0 ? `${number(seconds)} s to ${instant(found.end_ms)}` : instant(found.end_ms);
  return `final ${found.density_per_m2.toFixed(2)}/m² (${span})`;
}

function makeRow(zone) {
  const parts = {
    swatch: h("span", { class: "swatch", "aria-hidden": "true" }),
    density: h("strong", { class: "density" }, "–"),
    level: h("span", { class: "level" }),
    fill: h("span", { class: "fill" }),
    persons: h("span"),
    provisional: h("span", { class: "chip provisional", title: "Counted from live positions; the final value comes with its window" }, "provisional"),
    window: h("span", { class: "window" }),
  };
  parts.element = h(
    "li", { class: "zone" },
    h("div", { class: "zone-head" }, parts.swatch,
      h("span", { class: "zone-name" }, h("b", {}, zone.id), ` ${zone.name}`),
      h("span", { class: "zone-density" }, parts.density, h("span", { class: "unit" }, " /m²"))),
    h("div", { class: "meter", "aria-hidden": "true" }, parts.fill),
    h("div", { class: "zone-foot" }, parts.level, parts.persons, parts.provisional, parts.window),
  );
  return parts;
}
