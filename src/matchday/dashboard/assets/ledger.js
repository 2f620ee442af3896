// The account per source, and whether it adds up.

import { arrange, byId, h, keep, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";

const COLUMNS = ["received", "stored", "pending", "duplicate", "refused", "expired"];
const ROWS_MAX = 100;
const ROWS_KEPT_MAX = 1000; // twice as many as the server gives

export class LedgerTable {
  constructor() {
    this.body = byId("ledger-body");
    this.totals = byId("ledger-totals");
    this.mark = byId("ledger-mark");
    this.note = byId("ledger-note");
    this.showAll = byId("ledger-all");
    this.more = byId("ledger-more");
    this.sourceCount = byId("ledger-count");
    this.rows = new Map();
    this.showAll.addEventListener("click", () => {
      this.isWhole = true;
      if (this.ledger) this.take(this.ledger);
    });
  }

  take(ledger) {
    this.ledger = ledger;
    const shown = this.isWhole ? ledger.sources : ledger.sources.slice(0, ROWS_MAX);
    arrange(this.body, shown.map((line) => this.#row(line).element));
    arrange(this.totals, [this.#row({ ...ledger.totals, source: "All sources" }).element]);
    const isEmpty = ledger.sources.length === 0;
    byId("ledger-table").hidden = isEmpty;
    byId("ledger-empty").hidden = !isEmpty;
    this.showAll.hidden = shown.length === ledger.sources.length;
    const isPart = ledger.source_count > ledger.sources.length;
    setText(this.showAll, `Show ${isPart ? "" : "all "}${count(ledger.sources.length)} sources`);
    this.more.hidden = !isPart;
    setText(this.sourceCount, count(ledger.source_count));
    setText(this.mark, isEmpty ? "nothing to account for" : ledger.adds_up ? "✓ adds up" : "✗ does not add up");
    setAttribute(this.mark, "class", `chip ${isEmpty ? "" : ledger.adds_up ? "good" : "bad"}`);
    setText(this.note, "");
  }

  fail(text) {
    setText(this.note, `No account at present: ${text}. The figures below are the last known.`);
  }

  #row(line) {
    let row = this.rows.get(line.source);
    if (!row) {
      const name = h("th", { scope: "row" }, line.source);
      const cells = Object.fromEntries([...COLUMNS, "sum", "missing"].map((c) => [c, h("td", { class: `number ${c}` })]));
      row = { cells, element: h("tr", { "data-source": line.source }, name, ...Object.values(cells)) };
      keep(this.rows, line.source, row, ROWS_KEPT_MAX);
    }
    for (const column of [...COLUMNS, "missing"]) {
      setText(row.cells[column], count(line[column]));
      row.cells[column].classList.toggle("zero", line[column] === 0);
    }
    row.cells.refused.classList.toggle("notable", line.refused > 0);
    row.cells.expired.classList.toggle("alarming", line.expired > 0);
    row.cells.missing.classList.toggle("notable", line.missing > 0);
    setText(row.cells.sum, line.adds_up ? "✓ yes" : "✗ no");
    row.cells.sum.classList.toggle("alarming", !line.adds_up);
    return row;
  }
}
