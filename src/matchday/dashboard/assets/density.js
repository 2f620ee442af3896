// Persons per square metre as colour and as words.
//
// The colours are anchors of cividis (Nunez, Anderton, Renslow 2018): one hue path from blue to
// yellow with even steps in lightness, the same for people who confuse red and green. 4.7 /m2
// is the highest density that the Guide to Safety at Sports Grounds allows in standing areas;
// 2 /m2 is about where free walking ends (Fruin 1971, level of service E to F).

export const DENSITY_MAX = 6;

export const LEVELS = [
  { from: 0, name: "free" },
  { from: 2, name: "dense" },
  { from: 4, name: "very dense" },
  { from: 4.7, name: "above standing limit" },
];

const ANCHORS = [
  [0, 32, 76], [0, 52, 110], [60, 74, 107], [91, 95, 109], [117, 117, 117],
  [146, 140, 120], [176, 165, 114], [209, 191, 102], [255, 233, 69],
];

export function densityRgb(density) {
  const place = (Math.min(Math.max(density, 0), DENSITY_MAX) / DENSITY_MAX) * (ANCHORS.length - 1);
  const i = Math.min(Math.floor(place), ANCHORS.length - 2);
  return ANCHORS[i].map((from, c) => Math.round(from + (ANCHORS[i + 1][c] - from) * (place - i)));
}

export const densityColour = (density, alpha = 1) => `rgba(${densityRgb(density).join(",")},${alpha})`;

/** Black or white, whichever is easier to read on the colour of this density. */
export function inkOn(density) {
  const [r, g, b] = densityRgb(density);
  return 0.299 * r + 0.587 * g + 0.114 * b > 125 ? "#0b1217" : "#ffffff";
}

export const levelOf = (density) => LEVELS.findLast((level) => density >= level.from).name;

/** Paint the scale into a canvas of any size. */
export function paintScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = densityColour((x / (canvas.width - 1)) * DENSITY_MAX);
    context.fillRect(x, 0, 1, canvas.height);
  }
}
