// Mouse, touch, keys and buttons, the same for every kind of page.
//
// A page hands over an object `scene` with turn(dx, dy) and shift(dx, dy) in CSS pixels, zoom(factor)
// (above 1: nearer), and actions by name; active() tells it that the user took over. Arrow keys call
// step(x, y) once where there is such a function, else they turn while they are held; other keys call
// fly(right, down, forward) in shares of a second where there is that.

const KEYS = {
  n: "next", p: "previous", t: "turn", r: "reset", h: "help", "?": "help", i: "bare", u: "up", " ": "play",
};
const ARROWS = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const FLIGHT = { w: [0, 0, 1], s: [0, 0, -1], a: [-1, 0, 0], d: [1, 0, 0], q: [0, 1, 0], e: [0, -1, 0] };
const KEY_STEP = 240; // CSS pixels a second that a held arrow key drags

function byId(id) {
  return document.getElementById(id);
}

function bytesOf(base64) {
  const text = atob(base64.trim());
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function fail(text) {
  byId("message").textContent = text;
  byId("message").hidden = false;
  byId("status").textContent = "not shown";
  document.body.dataset.state = "failed";
}

// #camera=3 starts at a camera, #bare hides the interface, #turn turns, #time=0.3 is a time of what
// moves, #play plays; joined with &.
function wishes() {
  return new URLSearchParams(location.hash.slice(1));
}

class Controls {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.scene = scene;
    this.held = new Set();
    this.fingers = new Map();
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    window.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("keyup", (event) => this.held.delete(event.key.toLowerCase()));
    window.addEventListener("blur", () => this.held.clear());
    for (const button of document.querySelectorAll("[data-action]"))
      button.addEventListener("click", () => this.act(button.dataset.action));
    byId("interface").hidden = wishes().has("bare");
    canvas.focus({ preventScroll: true });
  }

  act(action) {
    if (action === "help") byId("help").hidden = !byId("help").hidden;
    else if (action === "bare") byId("interface").hidden = !byId("interface").hidden;
    else if (this.scene.actions[action]) this.scene.actions[action]();
  }

  // Moves by the keys that are held; returns whether there are any. Called before each frame.
  advance(seconds) {
    let moving = false;
    for (const key of this.held) {
      if (ARROWS[key]) {
        const [x, y] = ARROWS[key];
        this.scene.turn(-x * KEY_STEP * seconds, -y * KEY_STEP * seconds);
        moving = true;
      } else {
        this.scene.fly(...FLIGHT[key].map((part) => part * seconds));
        moving = true;
      }
    }
    return moving;
  }

  key(event) {
    const { tagName } = event.target, key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || tagName === "SELECT") return;
    if (tagName === "INPUT" && (ARROWS[key] || key === "+" || key === "-")) return; // the slider's own
    if (tagName === "BUTTON" && key === " ") return; // presses it
    if (KEYS[key] && !event.repeat) this.act(KEYS[key]);
    else if (key === "+" || key === "=") this.zoom(1.15);
    else if (key === "-") this.zoom(1 / 1.15);
    else if (ARROWS[key] && this.scene.step) {
      this.scene.active();
      this.scene.step(...ARROWS[key]);
    } else if (ARROWS[key] || (FLIGHT[key] && this.scene.fly)) {
      this.held.add(key);
      this.scene.active();
    } else return;
    if (key.startsWith("arrow") || key === " ") event.preventDefault();
  }

  zoom(factor) {
    this.scene.active();
    this.scene.zoom(factor);
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * 0.0015));
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    this.scene.active();
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size && this.scene.released) this.scene.released();
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const shift = [now[0] - before[0], now[1] - before[1]];
    if (this.fingers.size === 1) {
      const aside = event.shiftKey || (event.buttons & 6) !== 0;
      if (aside) this.scene.shift(...shift);
      else this.scene.turn(...shift);
    } else if (this.fingers.size === 2) {
      const other = [...this.fingers].find(([id]) => id !== event.pointerId)[1];
      const length = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) + 1e-6;
      this.scene.zoom(length(now) / length(before));
      this.scene.shift(shift[0] / 2, shift[1] / 2);
    }
    this.fingers.set(event.pointerId, now);
  }
}
