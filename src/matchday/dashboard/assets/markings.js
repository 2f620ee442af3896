// The lines of a football pitch and of an Australian-football oval, in metres.
//
// `line` is a context already transformed to the venue frame (x along, y across, y up).

const TURN = 2 * Math.PI;

export function outline(context, pitch) {
  context.beginPath();
  if (pitch.shape === "oval") {
    context.ellipse(0, 0, pitch.length_m / 2, pitch.width_m / 2, 0, 0, TURN);
  } else {
    context.rect(-pitch.length_m / 2, -pitch.width_m / 2, pitch.length_m, pitch.width_m);
  }
}

/** Mowing stripes across the pitch, within its outline. */
export function stripes(context, pitch, colour) {
  const count = pitch.shape === "oval" ? 16 : 12;
  const step = pitch.length_m / count;
  context.save();
  outline(context, pitch);
  context.clip();
  context.fillStyle = colour;
  for (let i = 0; i < count; i += 2) {
    context.fillRect(-pitch.length_m / 2 + i * step, -pitch.width_m / 2, step, pitch.width_m);
  }
  context.restore();
}

export function markings(context, pitch) {
  outline(context, pitch);
  context.stroke();
  if (pitch.shape === "oval") oval(context, pitch);
  else rectangle(context, pitch);
}

/** Law 1 of the game; sizes that do not fit a small pitch are left out. */
function rectangle(context, pitch) {
  const halfX = pitch.length_m / 2;
  const halfY = pitch.width_m / 2;
  line(context, 0, -halfY, 0, halfY);
  circle(context, 0, 0, 9.15);
  spot(context, 0, 0);
  if (halfX < 30 || halfY < 21) return;
  for (const side of [-1, 1]) {
    const goal = side * halfX;
    context.strokeRect(goal, -20.16, -side * 16.5, 40.32);
    context.strokeRect(goal, -9.16, -side * 5.5, 18.32);
    context.strokeRect(goal, -3.66, side * 1.6, 7.32);
    const penalty = goal - side * 11;
    spot(context, penalty, 0);
    const half = Math.acos(5.5 / 9.15);
    const middle = side > 0 ? Math.PI : 0;
    context.beginPath();
    context.arc(penalty, 0, 9.15, middle - half, middle + half);
    context.stroke();
    for (const across of [-1, 1]) {
      const from = Math.atan2(-across, -side);
      context.beginPath();
      context.arc(goal, across * halfY, 1, from - Math.PI / 4, from + Math.PI / 4);
      context.stroke();
    }
  }
}

/** AFL laws: centre square 50 m, circles of 3 and 10 m, goal squares 9 x 6.4 m, 50 m arcs. */
function oval(context, pitch) {
  const halfX = pitch.length_m / 2;
  context.strokeRect(-25, -25, 50, 50);
  circle(context, 0, 0, 1.5);
  circle(context, 0, 0, 5);
  line(context, 0, -5, 0, 5);
  for (const side of [-1, 1]) {
    const goal = side * halfX;
    context.strokeRect(goal, -3.2, -side * 9, 6.4);
    for (const [y, length] of [[-9.6, 2], [-3.2, 4], [3.2, 4], [9.6, 2]]) {
      line(context, goal, y, goal + side * length, y);
    }
    context.save();
    outline(context, pitch);
    context.clip();
    circle(context, goal, 0, 50);
    context.restore();
  }
}

function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}

function circle(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, TURN);
  context.stroke();
}

function spot(context, x, y) {
  context.beginPath();
  context.arc(x, y, 0.35, 0, TURN);
  context.fill();
}
