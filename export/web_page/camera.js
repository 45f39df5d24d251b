// A camera that turns about a point: axes right, down, forward (unit vectors) and a position in the
// capture's frame less the origin. The point lies `distance` ahead.

const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0],
];
const scaled = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
const unit = (a) => scaled(a, 1 / Math.max(Math.hypot(...a), 1e-12));
const NEAREST_POLE = 0.03; // radians between the view and the way up

// Rodrigues: v turned about a unit axis
function turned(v, axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle), along = dot(axis, v) * (1 - c);
  return add(add(scaled(v, c), cross(axis, v), s), axis, along);
}

class Camera {
  constructor(view, up) {
    this.up = up;
    this.set(view);
  }

  // view: pose (3 rows of 4, camera to world), field_of_view in degrees, distance
  set(view) {
    const column = (j) => view.pose.map((row) => row[j]);
    this.right = column(0);
    this.down = column(1);
    this.forward = column(2);
    this.position = column(3);
    this.distance = view.distance;
    this.fieldOfView = view.field_of_view;
  }

  state() {
    return {
      pose: [0, 1, 2].map((i) => [this.right[i], this.down[i], this.forward[i], this.position[i]]),
      field_of_view: this.fieldOfView,
      distance: this.distance,
    };
  }

  // A view between two others; shares of 0 and 1 give them exactly.
  blend(from, to, share) {
    if (share >= 1) return this.set(to);
    const mix = (a, b) => a + (b - a) * share;
    this.set({
      pose: from.pose.map((row, i) => row.map((value, j) => mix(value, to.pose[i][j]))),
      field_of_view: mix(from.field_of_view, to.field_of_view),
      distance: mix(from.distance, to.distance),
    });
    this.straighten();
  }

  straighten() {
    this.forward = unit(this.forward);
    let right = add(this.right, this.forward, -dot(this.right, this.forward));
    if (Math.hypot(...right) < 1e-6) { // half way through a half turn nothing is left to go by
      const sizes = this.forward.map(Math.abs), least = sizes.indexOf(Math.min(...sizes));
      right = cross(this.forward, [0, 1, 2].map((i) => Number(i === least)));
    }
    this.right = unit(right);
    this.down = cross(this.forward, this.right);
  }

  pivot() {
    return add(this.position, this.forward, this.distance);
  }

  // Around the pivot, in radians: counterclockwise seen from above, then upwards.
  orbit(around, upwards) {
    const pivot = this.pivot(), side = cross(this.up, this.forward);
    const axis = Math.hypot(...side) > 1e-6 ? unit(side) : scaled(this.right, -1);
    const above = Math.acos(Math.max(-1, Math.min(1, dot(this.forward, this.up))));
    // a camera that starts beyond a pole may come back, not go farther
    const least = Math.min(0, NEAREST_POLE - above), most = Math.max(0, Math.PI - NEAREST_POLE - above);
    const pitch = Math.max(least, Math.min(most, upwards));
    for (const name of ["right", "down", "forward"])
      this[name] = turned(turned(this[name], axis, pitch), this.up, around);
    this.straighten();
    this.position = add(pivot, this.forward, -this.distance);
  }

  move(right, down, forward) {
    this.position = add(add(add(this.position, this.right, right), this.down, down), this.forward, forward);
  }

  zoom(factor) {
    const pivot = this.pivot();
    this.distance /= factor;
    this.position = add(pivot, this.forward, -this.distance);
  }

  // pixels, for a picture of this size
  focal(width, height) {
    return Math.min(width, height) / 2 / Math.tan((this.fieldOfView * Math.PI) / 360);
  }
}
