// The player that is followed: chosen by pointer or from a list, with its latest findings.

import { arrange, byId, h, keep, setText } from "./dom.js";
import { instant, number, valueName } from "./format.js";
import { lookOf, labelOf } from "./markers.js";

const METRICS_MAX = 2000;

export class Follow {
  constructor() {
    this.select = byId("follow");
    this.facts = byId("player-facts");
    this.note = byId("player-note");
    this.legend = byId("teams");
    this.metrics = new Map();
    this.key = "";
    this.names = "";
    this.select.addEventListener("change", () => (this.key = this.select.value));
  }

  clear() {
    this.metrics.clear();
    this.key = "";
  }

  choose(object) {
    this.key = object?.key ?? "";
    this.select.value = this.key;
  }

  take(metrics) {
    for (const metric of metrics) keep(this.metrics, `${metric.sensor}\n${metric.subject}`, metric, METRICS_MAX);
  }

  /** Bring list, legend and facts up to date with who is on the ground. */
  update(objects, teams) {
    const players = objects.filter((o) => o.team && !o.isBall)
      .sort((a, b) => a.team.localeCompare(b.team) || a.id.localeCompare(b.id, undefined, { numeric: true }));
    const names = players.map((p) => p.key).join();
    if (names !== this.names && document.activeElement !== this.select) this.#options(players);
    this.#legend(players, teams, objects.filter((o) => !o.team && !o.isBall).length);
    this.#facts(players.find((p) => p.key === this.key));
  }

  #options(players) {
    this.names = players.map((p) => p.key).join();
    this.select.replaceChildren(
      h("option", { value: "" }, players.length ? "nobody" : "no players yet"),
      ...players.map((p) => h("option", { value: p.key }, `${p.team} ${labelOf(p.id)}`)),
    );
    this.select.value = this.key;
    this.select.disabled = players.length === 0;
  }

  #legend(players, teams, personCount) {
    const sizes = teams.map((team) => [team, players.filter((p) => p.team === team).length]);
    const text = JSON.stringify([sizes, personCount > 0]);
    if (text === this.legendText) return;
    this.legendText = text;
    const items = sizes.map(([team, size]) => {
      const look = lookOf(team, teams);
      return h("li", {}, h("span", { class: `marker ${look.shape}`, "aria-hidden": "true" }), `${team} (${size}, ${look.shape}s)`);
    });
    if (players.length) items.push(h("li", {}, h("span", { class: "marker ball", "aria-hidden": "true" }), "ball"));
    if (personCount) items.push(h("li", {}, h("span", { class: "marker person", "aria-hidden": "true" }), "people (dots)"));
    this.legend.replaceChildren(...items);
  }

  #facts(player) {
    const metric = player ? this.metrics.get(player.key) : undefined;
    this.facts.hidden = !metric;
    if (!player) {
      setText(this.note, this.select.disabled ? "" : "Choose a player here or on the pitch to see speed and distance.");
      return;
    }
    if (!metric) {
      setText(this.note, "No finding about this player yet: the first comes when its window has closed.");
      return;
    }
    setText(this.note, `Final, ${instant(metric.start_ms)} to ${instant(metric.end_ms)} · ${metric.model}`);
    const values = factsOf(metric.values);
    const names = Object.keys(values).sort((a, b) => rank(a) - rank(b)).slice(0, 6);
    arrange(this.facts, names.map((name, index) => {
      const pair = this.facts.children[index] ?? h("div", {}, h("dt"), h("dd"));
      const [words, symbol] = valueName(name);
      setText(pair.children[0], words);
      setText(pair.children[1], `${number(values[name])} ${symbol}`.trim());
      return pair;
    }));
  }
}

/** The values of a finding; the mean speed follows from distance and time. */
function factsOf(values) {
  const { distance_m: distance, time_in_view_s: time } = values;
  return time > 0 ? { speed_mean_mps: distance / time, ...values } : values;
}

// Speed first, then distance, then the rest.
const rank = (name) => (name.startsWith("speed") ? 0 : name.startsWith("distance") ? 1 : 2);
