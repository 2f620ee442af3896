// One drawing of the venue, or of a part of it: ground, zones by density, everybody who moves.
//
// Two canvases lie on each other: the lower one changes with zones, size and theme, the upper
// one is cleared and drawn at every frame.

import { themeColour } from "./dom.js";
import { densityColour, inkOn } from "./density.js";
import { lookOf, labelOf, Sprites } from "./markers.js";
import { markings, outline, stripes } from "./markings.js";
import { Motion } from "./motion.js";

export class PitchView {
  /** @param frame {HTMLElement} holds both canvases; `area` is [x1, y1, x2, y2] in metres. */
  constructor(frame, { area, isDetail = false }) {
    this.frame = frame;
    this.area = area;
    this.isDetail = isDetail;
    this.ground = frame.querySelector("canvas.ground");
    this.players = frame.querySelector("canvas.players");
    this.sprites = new Sprites();
    this.zones = new Map();
    this.venue = null;
    this.isVisible = true;
    new ResizeObserver(() => this.#resize()).observe(frame);
    new IntersectionObserver(([entry]) => (this.isVisible = entry.isIntersecting)).observe(frame);
  }

  show(venue, area, { detailArea = null } = {}) {
    this.venue = venue;
    this.area = area;
    this.detailArea = detailArea;
    this.frame.style.aspectRatio = `${area[2] - area[0]} / ${area[3] - area[1]}`;
    this.#resize();
  }

  /** Take new zone states, by zone id. */
  setZones(zones) {
    this.zones = new Map(zones.map((zone) => [zone.zone, zone]));
    this.drawGround();
  }

  #resize() {
    const width = this.frame.clientWidth;
    const height = this.frame.clientHeight;
    if (!width || !height) return;
    this.ratio = Math.min(devicePixelRatio || 1, 2);
    for (const canvas of [this.ground, this.players]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    const [x1, y1, x2, y2] = this.area;
    this.scale = Math.min(this.ground.width / (x2 - x1), this.ground.height / (y2 - y1));
    this.left = this.ground.width / 2 - ((x1 + x2) / 2) * this.scale;
    this.top = this.ground.height / 2 + ((y1 + y2) / 2) * this.scale;
    this.drawGround();
  }

  toPixels(x, y) {
    return [this.left + x * this.scale, this.top - y * this.scale];
  }

  drawGround() {
    const { venue, ground, scale } = this;
    if (!venue || !scale) return;
    const context = ground.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.surround = themeColour("--surround");
    this.ink = themeColour("--text");
    context.fillStyle = this.surround;
    context.fillRect(0, 0, ground.width, ground.height);
    context.setTransform(scale, 0, 0, -scale, this.left, this.top);
    context.fillStyle = themeColour("--turf");
    outline(context, venue.pitch);
    context.fill();
    stripes(context, venue.pitch, themeColour("--turf-stripe"));
    context.strokeStyle = context.fillStyle = "rgba(255,255,255,0.82)";
    context.lineWidth = (1.4 * this.ratio) / scale;
    markings(context, venue.pitch);
    for (const zone of venue.zones) this.#zone(context, zone);
    for (const gate of venue.gates) this.#gate(context, gate);
    context.setTransform(1, 0, 0, 1, 0, 0);
    if (!this.isDetail) this.#zoneLabels(context);
    if (this.detailArea) this.#detailFrame(context);
    if (this.isDetail) this.#scaleBar(context);
  }

  #zone(context, zone) {
    const density = densityOf(this.zones.get(zone.id));
    context.beginPath();
    zone.polygon.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.fillStyle = density === null ? themeColour("--zone-empty") : densityColour(density, 0.92);
    context.fill();
    context.strokeStyle = themeColour("--zone-line");
    context.lineWidth = (1.2 * this.ratio) / this.scale;
    context.stroke();
  }

  #gate(context, gate) {
    const [[x1, y1], [x2, y2]] = gate.line;
    context.strokeStyle = themeColour("--gate");
    context.lineWidth = Math.max((4 * this.ratio) / this.scale, 0.12);
    context.beginPath();
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
    context.stroke();
  }

  #zoneLabels(context) {
    for (const zone of this.venue.zones) this.#zoneLabel(context, zone);
  }

  #zoneLabel(context, zone) {
    const xs = zone.polygon.map(([x]) => x);
    const ys = zone.polygon.map(([, y]) => y);
    const [left, top] = this.toPixels(Math.min(...xs), Math.max(...ys));
    const widthPx = (Math.max(...xs) - Math.min(...xs)) * this.scale;
    const heightPx = (Math.max(...ys) - Math.min(...ys)) * this.scale;
    const sizePx = 12 * this.ratio;
    const density = densityOf(this.zones.get(zone.id));
    const text = density === null ? zone.id : `${zone.id}  ${density.toFixed(1)}/m²`;
    context.font = `600 ${sizePx}px system-ui, sans-serif`;
    if (context.measureText(text).width + 10 * this.ratio > widthPx || heightPx < sizePx * 1.5) return;
    const x = left + 5 * this.ratio;
    const y = top + 4 * this.ratio;
    context.textBaseline = "top";
    context.textAlign = "left";
    context.lineJoin = "round";
    context.lineWidth = 4 * this.ratio;
    context.strokeStyle = density === null ? this.surround : densityColour(density);
    context.strokeText(text, x, y);
    context.fillStyle = density === null ? this.ink : inkOn(density);
    context.fillText(text, x, y);
  }

  #detailFrame(context) {
    const [x1, y1, x2, y2] = this.detailArea;
    const [left, top] = this.toPixels(x1, y2);
    const [right, bottom] = this.toPixels(x2, y1);
    context.strokeStyle = themeColour("--text");
    context.lineWidth = 1.2 * this.ratio;
    context.setLineDash([4 * this.ratio, 3 * this.ratio]);
    context.strokeRect(left, top, right - left, bottom - top);
    context.setLineDash([]);
    context.fillStyle = themeColour("--text");
    context.font = `600 ${12 * this.ratio}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillText("see detail", right + 6 * this.ratio, (top + bottom) / 2);
  }

  #scaleBar(context) {
    const metres = [1, 2, 5, 10, 20, 50].findLast((m) => m * this.scale < this.ground.width * 0.3) ?? 1;
    const x = this.ground.width - 12 * this.ratio - metres * this.scale;
    const y = this.ground.height - 12 * this.ratio;
    context.fillStyle = context.strokeStyle = themeColour("--text");
    context.lineWidth = 2 * this.ratio;
    context.strokeRect(x, y, metres * this.scale, 0.01);
    context.font = `600 ${12 * this.ratio}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "bottom";
    context.fillText(`${metres} m`, x + (metres * this.scale) / 2, y - 4 * this.ratio);
  }

  /** Draw everybody who moves; `objects` as `Motion.at` gives them. */
  drawPlayers(objects, { teams, selectedKey, nowMs, withTrail }) {
    if (!this.isVisible || !this.scale) return;
    const context = this.players.getContext("2d");
    context.clearRect(0, 0, this.players.width, this.players.height);
    const radius = Math.round(Math.min(13 * this.ratio, Math.max(6 * this.ratio, 1.35 * this.scale)));
    const person = Math.max(1.75 * this.ratio, Math.min(4 * this.ratio, 0.14 * this.scale));
    let ball = null;
    for (const object of objects) {
      if (object.isBall) ball = object;
      else if (object.key === selectedKey) this.#ring(context, object, radius);
    }
    if (ball && withTrail) this.#trail(context, Motion.trail(ball, nowMs));
    for (const object of objects) {
      if (object.isBall) continue;
      const sprite = object.team
        ? this.sprites.player(lookOf(object.team, teams), labelOf(object.id), radius)
        : this.sprites.person(Math.round(person * 2) / 2);
      this.#stamp(context, sprite, object);
    }
    if (ball) this.#stamp(context, this.sprites.ball(Math.round(radius * 0.55)), ball);
    // Where a crowd fills the zone, the figure stands in front of it.
    if (this.isDetail) this.#zoneLabels(context);
  }

  #stamp(context, sprite, object) {
    const [x, y] = this.toPixels(object.x, object.y);
    if (x < -50 || y < -50 || x > this.players.width + 50 || y > this.players.height + 50) return;
    context.drawImage(sprite, x - sprite.width / 2, y - sprite.height / 2);
  }

  #ring(context, object, radius) {
    const [x, y] = this.toPixels(object.x, object.y);
    context.beginPath();
    context.arc(x, y, radius * 1.75, 0, 2 * Math.PI);
    context.fillStyle = "rgba(255,255,255,0.22)";
    context.fill();
    context.lineWidth = 2.5 * this.ratio;
    context.strokeStyle = "#ffffff";
    context.stroke();
  }

  #trail(context, points) {
    context.lineWidth = 2.5 * this.ratio;
    context.lineCap = "round";
    for (let i = 1; i < points.length; i += 1) {
      context.strokeStyle = `rgba(255,255,255,${(0.75 * i) / points.length})`;
      context.beginPath();
      context.moveTo(...this.toPixels(points[i - 1].x, points[i - 1].y));
      context.lineTo(...this.toPixels(points[i].x, points[i].y));
      context.stroke();
    }
  }

  /** Give the player nearest to a pointer event, within reach of a finger; else null. */
  pick(event, objects) {
    const box = this.players.getBoundingClientRect();
    const px = (event.clientX - box.left) * this.ratio;
    const py = (event.clientY - box.top) * this.ratio;
    let best = null;
    let bestDistance = 22 * this.ratio;
    for (const object of objects) {
      if (!object.team || object.isBall) continue;
      const [x, y] = this.toPixels(object.x, object.y);
      const distance = Math.hypot(x - px, y - py);
      if (distance < bestDistance) [best, bestDistance] = [object, distance];
    }
    return best;
  }
}

/** The density to show: what is there now, else the last final window, else null. */
export function densityOf(zone) {
  return zone?.density_per_m2 ?? zone?.window?.density_per_m2 ?? null;
}
