// Shows the pictures of the page: one for each azimuth and elevation. Between neighbours they are
// blended in a narrow band only, and at rest the nearest is shown: a mean of two views is no view.

const BAND = 0.3; // of the way between two pictures
const SETTLING = 8; // a second: how fast a view goes to the nearest picture
const TURN = 0.5; // radians a second
const SMALLEST = 0.5, LARGEST = 12; // zoom

function sharpened(share) {
  const x = Math.max(0, Math.min(1, (share - 0.5) / BAND + 0.5));
  return x * x * (3 - 2 * x);
}

class Orbit {
  constructor(scene, canvas) {
    Object.assign(this, { scene, canvas, context: canvas.getContext("2d", { alpha: false }) });
    this.columns = scene.azimuths.length;
    this.rows = scene.elevations.length;
    this.pictures = scene.pictures.map((data) => ({ data }));
    this.actions = {
      turn: () => this.setTurning(!this.turning),
      play: () => this.clock.toggle(),
      reset: () => this.reset(),
    };
    this.clock = new Clock(() => this.changed(), scene.times ? scene.times.length : 0);
    this.reset();
    this.sense = 1;
    this.last = performance.now();
    window.addEventListener("resize", () => this.changed());
    this.controls = new Controls(canvas, this);
    this.setTurning(wishes().has("turn"));
    requestAnimationFrame((now) => this.frame(now));
  }

  reset() {
    [this.column, this.row] = this.scene.start;
    this.size = 1;
    this.offset = [0, 0];
    this.held = false;
    this.setTurning(false);
    this.changed();
  }

  active() {
    this.setTurning(false);
    this.held = this.controls.fingers.size > 0;
  }

  released() {
    this.held = false;
  }

  setTurning(on) {
    this.turning = on;
    document.querySelector("[data-action=turn]").setAttribute("aria-pressed", String(on));
  }

  // Radians between two neighbours of a row.
  spacing() {
    if (this.columns < 2) return 1;
    return this.scene.azimuths[1] - this.scene.azimuths[0];
  }

  go(columns, rows) {
    this.column += columns;
    if (this.scene.closed) this.column = ((this.column % this.columns) + this.columns) % this.columns;
    else this.column = Math.max(0, Math.min(this.columns - 1, this.column));
    this.row = Math.max(0, Math.min(this.rows - 1, this.row + rows));
    this.changed();
  }

  changed() {
    this.dirty = true;
    document.body.dataset.state = "moving";
  }

  // Drag: half a turn over the shorter side, all rows over half of it.
  turn(dx, dy) {
    const side = Math.max(1, Math.min(innerWidth, innerHeight));
    this.go((dx / side) * (Math.PI / this.spacing()), (dy / side) * 2 * (this.rows - 1));
  }

  step(x, y) {
    this.go(-x, -y);
  }

  shift(dx, dy) {
    this.offset = [this.offset[0] + dx, this.offset[1] + dy];
    this.changed();
  }

  zoom(factor) {
    const size = Math.max(SMALLEST, Math.min(LARGEST, this.size * factor));
    this.offset = this.offset.map((value) => (value * size) / this.size);
    this.size = size;
    this.changed();
  }

  // A decoded picture, or null while it is being decoded.
  picture(index) {
    const entry = this.pictures[index];
    if (!entry.image) {
      entry.image = new Image();
      entry.image.src = `data:${this.scene.format};base64,${entry.data}`;
      entry.image.decode().then(
        () => { entry.ready = this.dirty = true; },
        () => fail("A picture of this page is damaged; write the page again."),
      );
    }
    return entry.ready ? entry.image : null;
  }

  // Up to four neighbours with weights that add up to 1.
  neighbours() {
    const left = Math.floor(this.column), low = Math.floor(this.row);
    const right = this.scene.closed ? (left + 1) % this.columns : Math.min(left + 1, this.columns - 1);
    const high = Math.min(low + 1, this.rows - 1);
    const x = sharpened(this.column - left), y = sharpened(this.row - low);
    const all = [
      [low, left, (1 - x) * (1 - y)], [low, right, x * (1 - y)],
      [high, left, (1 - x) * y], [high, right, x * y],
    ];
    return all.filter(([, , weight]) => weight > 0)
      .map(([row, column, weight]) => [this.index(row, column), weight]);
  }

  // Of a picture, at the present time.
  index(row, column) {
    return (this.clock.step * this.rows + row) * this.columns + (column % this.columns);
  }

  settle(seconds) {
    if (this.held || this.turning) return;
    const to = [Math.round(this.column), Math.round(this.row)];
    const rest = [to[0] - this.column, to[1] - this.row];
    if (!rest[0] && !rest[1]) return;
    const close = Math.hypot(...rest) < 0.01 ? 1 : Math.min(1, SETTLING * seconds);
    this.go(rest[0] * close, rest[1] * close);
  }

  frame(now) {
    const seconds = Math.min((now - this.last) / 1000, 0.1);
    this.last = now;
    if (this.turning) {
      this.go((this.sense * TURN * seconds) / this.spacing(), 0);
      const end = this.sense > 0 ? this.columns - 1 : 0;
      if (!this.scene.closed && this.column === end) this.sense = -this.sense; // there and back
    }
    this.settle(seconds);
    if (this.clock.advance(seconds)) this.changed();
    const dirty = this.dirty;
    this.dirty = false;
    if (dirty) this.paint();
    document.body.dataset.state = dirty || this.waiting ? "moving" : "still";
    requestAnimationFrame((time) => this.frame(time));
  }

  paint() {
    const chosen = this.neighbours(), images = chosen.map(([index]) => this.picture(index));
    this.waiting = images.includes(null);
    this.ahead(chosen[0][0]);
    this.tell();
    if (this.waiting) return; // the picture before stays until this one is there
    const ratio = Math.min(window.devicePixelRatio || 1, 2), { context, canvas, scene } = this;
    const [width, height] = [Math.round(innerWidth * ratio), Math.round(innerHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const fit = Math.min(width / scene.width, height / scene.height) * this.size;
    // whole pixels: no seam of the black below
    const [w, h] = [Math.round(scene.width * fit), Math.round(scene.height * fit)];
    const [x, y] = [width - w, height - h].map((rest, i) => Math.round(rest / 2 + this.offset[i] * ratio));
    context.globalCompositeOperation = "source-over";
    context.globalAlpha = 1;
    context.fillStyle = scene.surround;
    context.fillRect(0, 0, width, height);
    context.fillStyle = "#000";
    context.fillRect(x, y, w, h);
    context.imageSmoothingQuality = "high";
    context.globalCompositeOperation = "lighter"; // weights add up to 1
    images.forEach((image, i) => {
      context.globalAlpha = chosen[i][1];
      context.drawImage(image, x, y, w, h);
    });
  }

  // Neighbours are decoded before they are needed.
  ahead(index) {
    const row = Math.floor(index / this.columns) % this.rows, column = index % this.columns;
    const later = (index + this.rows * this.columns) % this.pictures.length;
    if (this.clock.playing) this.picture(later);
    for (const [dx, dy] of [[1, 0], [-1, 0], [2, 0], [-2, 0], [0, 1], [0, -1]]) {
      const x = (column + dx + this.columns) % this.columns, y = row + dy;
      if (y >= 0 && y < this.rows) this.picture(this.index(y, x));
    }
  }

  tell() {
    const row = Math.min(this.rows - 1, Math.round(this.row)), column = Math.round(this.column) % this.columns;
    const pose = this.scene.poses[row * this.columns + column];
    const where = pose.map((line) => line[3].toPrecision(4)).join(" ");
    const height = (this.scene.elevations[row] * 180) / Math.PI;
    byId("status").textContent =
      `picture ${column + 1} of ${this.columns}, elevation ${height.toFixed(0)}° · at ${where}`;
  }
}

try {
  new Orbit(JSON.parse(byId("scene").textContent), byId("picture"));
} catch (error) {
  fail(error.message);
}
