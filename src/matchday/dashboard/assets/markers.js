// How objects look: every team has a colour and a shape of its own, the ball and people in a
// crowd look like neither. Shapes are drawn once and then copied.

const TEAM_LOOKS = [
  { colour: "#79bfff", shape: "circle" },
  { colour: "#ffb066", shape: "square" },
  { colour: "#dcb2ff", shape: "diamond" },
  { colour: "#a8e6a1", shape: "triangle" },
];

/** Put teams in their order: home first, away second, others by name. */
export const inOrder = (teams) => [...teams].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));

/** Give the look of a team by its place among all, which are in order. */
export const lookOf = (team, teams) => TEAM_LOOKS[Math.max(0, teams.indexOf(team)) % TEAM_LOOKS.length];

const rank = (team) => ({ home: 0, away: 1 })[team] ?? 2;

/** The short label of a player: its number, or its first letters. */
export function labelOf(id) {
  return id.match(/(\d{1,2})$/)?.[1] ?? id.slice(0, 2).toUpperCase();
}

function trace(context, shape, r) {
  context.beginPath();
  if (shape === "circle") context.arc(0, 0, r, 0, 2 * Math.PI);
  else if (shape === "square") context.roundRect(-r * 0.9, -r * 0.9, r * 1.8, r * 1.8, r * 0.25);
  else if (shape === "diamond") polygon(context, [[0, -r * 1.2], [r * 1.2, 0], [0, r * 1.2], [-r * 1.2, 0]]);
  else polygon(context, [[0, -r * 1.25], [r * 1.2, r * 0.9], [-r * 1.2, r * 0.9]]);
}

function polygon(context, points) {
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.closePath();
}

export class Sprites {
  constructor() {
    this.kept = new Map();
  }

  /** Give a player's sprite for radius `r` in device pixels. */
  player(look, label, r) {
    return this.#keep(`${look.shape}${look.colour}${label}|${r}`, r, (context) => {
      trace(context, look.shape, r);
      context.fillStyle = look.colour;
      context.fill();
      context.lineWidth = Math.max(1.5, r * 0.16);
      context.strokeStyle = "#0b1520";
      context.stroke();
      if (r < 6) return;
      context.fillStyle = "#0b1520";
      context.font = `700 ${Math.round(r * 1.05)}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText(label, 0, r * 0.08 + (look.shape === "triangle" ? r * 0.2 : 0));
    });
  }

  ball(r) {
    return this.#keep(`ball|${r}`, r, (context) => {
      context.beginPath();
      context.arc(0, 0, r, 0, 2 * Math.PI);
      context.fillStyle = "#ffffff";
      context.fill();
      context.lineWidth = Math.max(1.5, r * 0.4);
      context.strokeStyle = "#101a1f";
      context.stroke();
    });
  }

  person(r) {
    return this.#keep(`person|${r}`, r, (context) => {
      context.beginPath();
      context.arc(0, 0, r, 0, 2 * Math.PI);
      context.fillStyle = "#f4f7f8";
      context.fill();
      context.lineWidth = Math.max(1, r * 0.3);
      context.strokeStyle = "#0f1a20";
      context.stroke();
    });
  }

  #keep(key, r, draw) {
    let sprite = this.kept.get(key);
    if (!sprite) {
      sprite = document.createElement("canvas");
      sprite.width = sprite.height = Math.ceil(r * 3) + 4;
      const context = sprite.getContext("2d");
      context.translate(sprite.width / 2, sprite.height / 2);
      draw(context);
      if (this.kept.size > 500) this.kept.clear();
      this.kept.set(key, sprite);
    }
    return sprite;
  }
}
