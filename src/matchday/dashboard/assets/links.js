// The state of every link and where the data comes from.

import { arrange, byId, h, keep, setAttribute, setText } from "./dom.js";
import { count, duration, instant, lasting, number } from "./format.js";

const ROWS_MAX = 1000; // twice as many as the server lists

export class LinkList {
  constructor() {
    this.list = byId("links-list");
    this.rows = new Map();
    this.links = [];
  }

  take(links) {
    this.links = links;
    this.update(Date.now());
  }

  isDown(name) {
    return this.links.find((link) => link.name === name && !link.is_up);
  }

  /** Bring the durations up to date with the server's clock. */
  update(nowMs) {
    arrange(this.list, this.links.map((link) => this.#row(link, nowMs)));
  }

  #row(link, nowMs) {
    let row = this.rows.get(link.name);
    if (!row) {
      row = { state: h("span"), since: h("span", { class: "since" }), detail: h("p", { class: "detail" }) };
      row.element = h("li", { "data-link": link.name }, row.state, h("b", {}, link.name), row.since, row.detail);
      this.rows.set(link.name, row);
    }
    setText(row.state, link.is_up ? "✓ up" : "✗ down");
    setAttribute(row.state, "class", `chip ${link.is_up ? "good" : "bad"}`);
    setText(row.since, `since ${instant(link.since_ms)} (${lasting(nowMs - link.since_ms)})`);
    setText(row.detail, link.detail);
    return row.element;
  }
}

export class SourceTable {
  constructor() {
    this.body = byId("sources-body");
    this.more = byId("sources-more");
    this.moreCount = byId("sources-count");
    this.moreLink = byId("sources-next");
    this.rows = new Map();
  }

  update(sources, nowMs) {
    byId("sources-table").hidden = sources.length === 0;
    byId("sources-empty").hidden = sources.length > 0;
    arrange(this.body, sources.map((source) => this.#row(source, nowMs)));
  }

  /** Say how many sources there are and where the next ones are, if these are not all. */
  tellMore({ source_count: sourceCount, next }) {
    this.more.hidden = next === null;
    setText(this.moreCount, count(sourceCount));
    setAttribute(this.moreLink, "href", `/api/v1/sources?after=${encodeURIComponent(next ?? "")}`);
  }

  #row(source, nowMs) {
    let row = this.rows.get(source.source);
    if (!row) {
      row = ["kind", "session", "rate", "age", "count"].map(() => h("td"));
      row.element = h("tr", {}, h("th", { scope: "row" }, source.source), ...row);
      for (const cell of row.slice(2)) cell.className = "number";
      keep(this.rows, source.source, row, ROWS_MAX);
    }
    const texts = [
      source.kind, [source.venue, source.session].filter(Boolean).join(" · ") || "–",
      `${number(source.readings_per_s)}/s`, duration(Math.max(0, nowMs - source.last_t_ms)), count(source.count),
    ];
    row.forEach((cell, index) => setText(cell, texts[index]));
    return row.element;
  }
}

export function showAttributions(attributions) {
  byId("attributions").hidden = attributions.length === 0;
  byId("attributions-list").replaceChildren(
    ...attributions.map(({ name, text, url }) => {
      const isLink = url.startsWith("https://");
      const title = isLink ? h("a", { href: url, rel: "noreferrer" }, name) : h("b", {}, name);
      return h("li", {}, title, ` ${text}`);
    }),
  );
}
