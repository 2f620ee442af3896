// Which part of a venue to draw: all of it, and the detail that is too small to be seen there.

const DETAIL_SHARE_MAX = 0.25;

const bounds = (points) => [
  Math.min(...points.map(([x]) => x)), Math.min(...points.map(([, y]) => y)),
  Math.max(...points.map(([x]) => x)), Math.max(...points.map(([, y]) => y)),
];

const grow = ([x1, y1, x2, y2], by) => [x1 - by, y1 - by, x2 + by, y2 + by];

/** Give the whole ground with its zones and gates, [x1, y1, x2, y2] in metres. */
export function wholeArea(venue) {
  const halfX = venue.pitch.length_m / 2;
  const halfY = venue.pitch.width_m / 2;
  const corners = [[-halfX, -halfY], [halfX, halfY]];
  return grow(bounds([...corners, ...placesOf(venue)]), 4);
}

/** Give the area around the zones where they are small on the whole drawing; else null. */
export function detailArea(venue) {
  const places = placesOf(venue);
  if (!places.length) return null;
  const [x1, y1, x2, y2] = grow(bounds(places), 1);
  const whole = wholeArea(venue);
  const isSmall = x2 - x1 < (whole[2] - whole[0]) * DETAIL_SHARE_MAX;
  return isSmall ? [x1, y1, x2, y2] : null;
}

const placesOf = (venue) => [
  ...venue.zones.flatMap((zone) => zone.polygon), ...venue.gates.flatMap((gate) => gate.line),
];
