// Puts the page together: one live connection in, every part told what concerns it.

import { ChartWall } from "./charts.js";
import { paintScale } from "./density.js";
import { byId, h, setAttribute, setText } from "./dom.js";
import { Follow } from "./follow.js";
import { count, duration, lasting, number, timeZone } from "./format.js";
import { LedgerTable } from "./ledger.js";
import { LinkList, showAttributions, SourceTable } from "./links.js";
import { inOrder } from "./markers.js";
import { Motion } from "./motion.js";
import { PitchView } from "./pitch.js";
import { LiveSocket } from "./socket.js";
import { detailArea, wholeArea } from "./venue.js";
import { ZoneList } from "./zones.js";

const STALE_MS = 10_000;
const STILL_EVERY_MS = 1000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

class Page {
  constructor(about, venues) {
    this.venues = venues;
    this.motion = new Motion();
    this.pitch = new PitchView(byId("pitch"), { area: [0, 0, 1, 1] });
    this.detail = new PitchView(byId("detail"), { area: [0, 0, 1, 1], isDetail: true });
    this.zones = new ZoneList(byId("zones-list"));
    this.follow = new Follow();
    this.charts = new ChartWall();
    this.ledger = new LedgerTable();
    this.links = new LinkList();
    this.sources = new SourceTable();
    this.sourceStates = [];
    this.tiles = null;
    this.clockOffsetMs = 0;
    this.isOpen = false;
    this.wasTried = false;
    this.retryAtMs = 0;
    this.isPaused = false;
    this.lastStillMs = 0;
    this.socket = new LiveSocket({
      message: (message) => this.#take(message),
      state: (isOpen, retryMs) => {
        this.isOpen = isOpen;
        this.wasTried = true;
        this.retryAtMs = Date.now() + retryMs;
        this.#status();
      },
    });
    this.#about(about);
    this.#controls();
    paintScale(byId("scale"));
  }

  start() {
    const wanted = new URLSearchParams(location.search).get("venue");
    this.show(this.venues.find((venue) => venue.id === wanted) ?? this.venues[0]);
    setInterval(() => this.#everySecond(), 1000);
    const frame = (nowMs) => {
      this.#draw(nowMs);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  show(venue) {
    this.venue = venue;
    this.motion.clear();
    this.follow.clear();
    byId("ground").hidden = !venue;
    if (venue) {
      const detail = detailArea(venue);
      setText(byId("venue-name"), venue.name);
      byId("zones").hidden = venue.zones.length === 0;
      byId("ground").classList.toggle("no-zones", venue.zones.length === 0);
      byId("detail").hidden = !detail;
      this.pitch.show(venue, wholeArea(venue), { detailArea: detail });
      if (detail) this.detail.show(venue, detail);
      this.zones.show(venue);
    }
    this.socket.watch(venue?.id ?? "");
  }

  // --- what arrives ------------------------------------------------------------------------

  #take(message) {
    if (message.kind === "positions") {
      if (message.venue === this.venue?.id) this.motion.take(message.frames, performance.now());
      return;
    }
    this.#takeTiles(message.tiles);
    if (this.venue && message.zones) {
      this.zones.update(message.zones);
      this.pitch.setZones(message.zones);
      if (!byId("detail").hidden) this.detail.setZones(message.zones);
    }
    this.follow.take(message.metrics ?? []);
    this.charts.take(message.series ?? [], message.forecasts ?? []);
    if (message.ledger) this.#takeLedger(message.ledger);
    if (message.ledger_error) this.ledger.fail(message.ledger_error);
    if (message.links) this.links.take(message.links);
    if (message.sources) {
      this.sourceStates = message.sources.sources;
      this.sources.update(this.sourceStates, this.#now());
      this.sources.tellMore(message.sources);
    }
    if (!this.isPaused) this.follow.update(this.#objects(performance.now()), this.#teams());
    this.#status();
  }

  #takeTiles(tiles) {
    this.tiles = tiles;
    this.clockOffsetMs = tiles.now_ms - Date.now();
    setText(byId("tile-objects"), count(tiles.objects));
    setText(byId("tile-hz"), number(tiles.position_hz));
    setText(byId("tile-readings"), number(tiles.readings_per_s));
    byId("pitch-empty").hidden = tiles.objects > 0;
    this.#age();
  }

  #takeLedger(ledger) {
    this.ledger.take(ledger);
    setText(byId("tile-pending"), count(ledger.totals.pending));
    setText(byId("tile-refused"), count(ledger.totals.refused));
  }

  // --- what is shown -----------------------------------------------------------------------

  #now() {
    return Date.now() + this.clockOffsetMs;
  }

  #ageMs() {
    return this.tiles?.newest_ms ? this.#now() - this.tiles.newest_ms : null;
  }

  #age() {
    const ageMs = this.#ageMs();
    const text = ageMs === null ? "–" : ageMs < -1000 ? `${duration(ageMs)} ahead` : duration(Math.max(0, ageMs));
    setText(byId("tile-age"), text);
    byId("tile-age").classList.toggle("alarming", ageMs !== null && ageMs > STALE_MS);
  }

  #status() {
    const down = this.links.isDown("live view");
    const ageMs = this.#ageMs();
    let [kind, text] = ["good", "Live"];
    if (!this.wasTried) [kind, text] = ["wait", "Connecting"];
    else if (!this.isOpen) [kind, text] = ["bad", "Reconnecting"];
    else if (down) [kind, text] = ["bad", "Stream is down"];
    else if (ageMs === null) [kind, text] = ["wait", "Waiting for data"];
    else if (ageMs > STALE_MS) [kind, text] = ["wait", "Data is old"];
    // What is shown without a connection is what was last heard, and looks like it.
    byId("main").classList.toggle("stale", this.wasTried && !this.isOpen);
    setAttribute(byId("status"), "class", `status ${kind}`);
    setText(byId("status-text"), text);
    const waitS = Math.max(0, Math.ceil((this.retryAtMs - Date.now()) / 1000));
    let note = "";
    if (!this.wasTried) note = "";
    else if (!this.isOpen) note = waitS > 0 ? `next try in ${waitS} s` : "trying now";
    else if (down) note = `for ${lasting(this.#now() - down.since_ms)}`;
    else if (ageMs !== null && ageMs > STALE_MS) note = duration(ageMs);
    setText(byId("status-note"), note);
  }

  #everySecond() {
    this.motion.forget(performance.now()); // while paused nothing else does
    this.#age();
    this.#status();
    this.links.update(this.#now());
    this.sources.update(this.sourceStates, this.#now());
  }

  #objects(nowMs) {
    return this.motion.at(nowMs, { interpolate: !calm.matches });
  }

  #teams() {
    const names = new Set();
    for (const object of this.motion.objects.values()) if (object.team && !object.isBall) names.add(object.team);
    return inOrder(names);
  }

  #draw(nowMs) {
    // Those who asked for less motion get a still picture once a second.
    if (this.isPaused || (calm.matches && nowMs - this.lastStillMs < STILL_EVERY_MS)) return;
    this.lastStillMs = nowMs;
    const objects = this.#objects(nowMs);
    const options = { teams: this.#teams(), selectedKey: this.follow.key, nowMs, withTrail: !calm.matches };
    this.pitch.drawPlayers(objects, options);
    if (!byId("detail").hidden) this.detail.drawPlayers(objects, options);
  }

  // --- once --------------------------------------------------------------------------------

  #about(about) {
    document.title = about.title;
    setText(byId("title"), about.title);
    setText(byId("version"), `matchday ${about.version}`);
    setText(byId("zone-note"), `Times in ${timeZone}`);
    for (const element of document.querySelectorAll(".endpoint")) setText(element, about.endpoint);
    for (const element of document.querySelectorAll(".publish-line")) setText(element, about.publish_line);
    showAttributions(about.attributions);
  }

  #controls() {
    const select = byId("venue");
    select.replaceChildren(...this.venues.map((venue) => h("option", { value: venue.id }, venue.name)));
    byId("venue-choice").hidden = this.venues.length < 2;
    select.addEventListener("change", () => {
      this.show(this.venues.find((venue) => venue.id === select.value));
      history.replaceState(null, "", `?venue=${encodeURIComponent(select.value)}`);
    });
    const pause = byId("pause");
    pause.addEventListener("click", () => {
      this.isPaused = !this.isPaused;
      setAttribute(pause, "aria-pressed", String(this.isPaused));
    });
    const players = byId("pitch").querySelector("canvas.players");
    players.addEventListener("click", (event) => {
      this.follow.choose(this.pitch.pick(event, this.#objects(performance.now())));
    });
    document.documentElement.addEventListener("themechange", () => {
      this.pitch.drawGround();
      this.detail.drawGround();
    });
  }
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function start() {
  try {
    const [about, { venues }] = await Promise.all([ask("/api/v1/about"), ask("/api/v1/venues")]);
    const page = new Page(about, venues);
    const wanted = new URLSearchParams(location.search).get("venue");
    if (venues.some((venue) => venue.id === wanted)) byId("venue").value = wanted;
    page.start();
  } catch {
    setText(byId("status-text"), "Server does not answer");
    setTimeout(start, 2000);
  }
}

start();
