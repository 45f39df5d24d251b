// Draws the Gaussians of the page: keeps a worker sorting, and blends splats from back to front into
// half floats, over which the background comes last.

const SLOWEST = 1 / 24, FASTEST = 1 / 55; // seconds a frame while moving; else pixels are dropped or added
const LEAST_SCALE = 0.3; // of the resolution
const REST = 0.25; // seconds without a move until the full resolution comes back
const FLIGHT_SECONDS = 0.5; // from one camera to another
const TURN = 0.35; // radians a second
const DRAG = Math.PI; // radians over the shorter side of the window

class Painter {
  constructor(canvas, scene, content) {
    this.scene = scene;
    this.canvas = canvas;
    const gl = (this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false }));
    if (!gl) throw new Error("This page needs WebGL 2, which this browser does not offer or has switched off.");
    if (Math.max(content.rows, ROW * Math.max(content.texels, scene.layout.degree)) > gl.getParameter(gl.MAX_TEXTURE_SIZE))
      throw new Error("This graphics card cannot hold so many Gaussians; write the page with fewer, or with --degree 0.");
    this.half = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
    const moves = scene.layout.moving ? "#define MOVING\n" : "";
    const vertex = SPLAT_VERTEX.replace("precision", `#define DEGREE ${scene.layout.degree}\n${moves}precision`);
    this.splats = this.program(vertex, SPLAT_FRAGMENT);
    this.finish = this.program(FINISH_VERTEX, FINISH_FRAGMENT);
    this.words(0, content.bodies, content.texels, content.rows);
    this.words(1, content.waves.length ? content.waves : new Uint32Array(4), scene.layout.degree, content.rows);
    this.textures(scene.background);
    this.array = gl.createVertexArray();
    this.order = gl.createBuffer();
    this.count = 0;
    this.target = gl.createFramebuffer();
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`The graphics driver refused a program: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
    }
    const uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); ++i) {
      const { name } = gl.getActiveUniform(program, i);
      uniforms[name] = gl.getUniformLocation(program, name);
    }
    return { program, uniforms };
  }

  texture(unit, filter) {
    const gl = this.gl, texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  words(unit, data, texels, rows) {
    const gl = this.gl;
    this.texture(unit, gl.NEAREST);
    const [width, height] = texels ? [ROW * texels, rows] : [1, 1];
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32UI, width, height, 0, gl.RGBA_INTEGER, gl.UNSIGNED_INT, data);
  }

  textures(background) {
    const gl = this.gl;
    this.blended = this.texture(2, gl.NEAREST);
    this.texture(3, gl.LINEAR);
    const [columns, rows] = background.sky ? [background.columns, background.rows] : [1, 1];
    const data = background.sky ? bytesOf(background.sky) : new Uint8Array(3);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, columns, rows, 0, gl.RGB, gl.UNSIGNED_BYTE, data);
  }

  resize(width, height) {
    const gl = this.gl;
    if (this.width === width && this.height === height) return;
    [this.width, this.height] = [this.canvas.width, this.canvas.height] = [width, height];
    gl.activeTexture(gl.TEXTURE2);
    // eight bits where half floats cannot be drawn to: many faint splats then round visibly
    const [inner, kind] = this.half ? [gl.RGBA16F, gl.HALF_FLOAT] : [gl.RGBA8, gl.UNSIGNED_BYTE];
    gl.texImage2D(gl.TEXTURE_2D, 0, inner, width, height, 0, gl.RGBA, kind, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.blended, 0);
  }

  upload(order, count) {
    this.count = count;
    this.gl.bufferData(this.gl.ARRAY_BUFFER, order.subarray(0, count), this.gl.DYNAMIC_DRAW);
  }

  draw(camera, time) {
    const gl = this.gl, focal = camera.focal(this.width, this.height), { layout } = this.scene;
    const turn = [0, 1, 2].flatMap((i) => [camera.right[i], camera.down[i], camera.forward[i]]);
    gl.viewport(0, 0, this.width, this.height);
    for (const [pass, frame] of [[this.splats, this.target], [this.finish, null]]) {
      const at = pass.uniforms;
      gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
      gl.useProgram(pass.program);
      gl.uniformMatrix3fv(at.turn, false, turn);
      gl.uniform2f(at.size, this.width, this.height);
      gl.uniform2f(at.focal, focal, focal);
      if (pass === this.splats) {
        gl.uniform1i(at.bodies, 0);
        if (at.waves) gl.uniform1i(at.waves, 1);
        gl.uniform3f(at.eye, ...camera.position);
        gl.uniform1f(at.near, this.scene.near);
        if (at.time) gl.uniform1f(at.time, time);
        gl.uniform2f(at.scaleRange, layout.scale_low, layout.scale_step);
        gl.uniform2f(at.colorRange, layout.color_low, layout.color_step);
        gl.uniform1i(at.antialiased, this.scene.antialiased ? 1 : 0);
        gl.clearColor(0, 0, 0, 0);
        gl.clear(gl.COLOR_BUFFER_BIT);
        gl.enable(gl.BLEND);
        gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
        gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count);
        gl.disable(gl.BLEND);
      } else {
        gl.uniform1i(at.blended, 2);
        gl.uniform1i(at.sky, 3);
        gl.uniform3f(at.background, ...this.scene.background.color);
        gl.uniform1i(at.hasSky, this.scene.background.sky ? 1 : 0);
        gl.drawArrays(gl.TRIANGLES, 0, 3);
      }
    }
  }
}

class Viewer {
  constructor(scene, painter, worker) {
    Object.assign(this, { scene, painter, worker });
    this.camera = new Camera(scene.views[0], scene.up);
    this.view = 0;
    this.scale = 1;
    this.frames = [];
    this.moved = this.stale = true;
    this.sorting = this.turning = false;
    this.rested = 0;
    this.last = performance.now();
    this.actions = {
      next: () => this.visit(this.view + 1),
      previous: () => this.visit(this.view - 1),
      turn: () => this.setTurning(!this.turning),
      play: () => this.clock.toggle(),
      reset: () => this.reset(),
      up: () => this.nextUp(),
    };
    this.clock = new Clock(() => this.changed());
    worker.onmessage = ({ data }) => this.sorted(data);
    window.addEventListener("resize", () => this.changed());
    this.select = byId("views");
    if (this.select) this.select.addEventListener("change", () => this.visit(Number(this.select.value)));
    this.controls = new Controls(painter.canvas, this);
    const wished = Number(wishes().get("camera"));
    if (Number.isInteger(wished) && scene.views[wished]) this.visit(wished, true);
    this.setTurning(wishes().has("turn"));
    requestAnimationFrame((now) => this.frame(now));
  }

  // The user took over.
  active() {
    this.setTurning(false);
    this.flight = null;
  }

  changed() {
    this.moved = true;
    document.body.dataset.state = "moving";
  }

  setTurning(on) {
    this.turning = on;
    document.querySelector("[data-action=turn]").setAttribute("aria-pressed", String(on));
  }

  reset() {
    this.camera.up = this.scene.up;
    this.setTurning(false);
    this.visit(0);
  }

  // Another axis of the capture's frame as the way up: files of Gaussians do not say which it is.
  nextUp() {
    this.active();
    const axes = [[0, -1, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [1, 0, 0], [-1, 0, 0]];
    const best = axes.reduce((a, b) => (dot(b, this.camera.up) > dot(a, this.camera.up) ? b : a));
    this.camera.up = axes[(axes.indexOf(best) + 1) % axes.length];
    const right = cross(this.camera.forward, this.camera.up);
    if (Math.hypot(...right) > 1e-3) this.camera.right = right; // else it looks along the new axis
    this.camera.orbit(0, 0);
    this.changed();
  }

  visit(index, atOnce = false) {
    const count = this.scene.views.length;
    this.view = ((index % count) + count) % count;
    if (this.select) this.select.value = String(this.view);
    const still = atOnce || matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.flight = { from: this.camera.state(), to: this.scene.views[this.view], share: still ? 1 : 0 };
    this.changed();
  }

  shorter() {
    return Math.max(1, Math.min(innerWidth, innerHeight));
  }

  turn(dx, dy) {
    const step = DRAG / this.shorter();
    this.camera.orbit(-dx * step, dy * step);
    this.changed();
  }

  shift(dx, dy) {
    const unit = this.camera.distance / this.camera.focal(innerWidth, innerHeight);
    this.camera.move(-dx * unit, -dy * unit, 0);
    this.changed();
  }

  zoom(factor) {
    this.camera.zoom(factor);
    this.changed();
  }

  fly(right, down, forward) {
    const speed = this.camera.distance * 0.7;
    this.camera.move(right * speed, down * speed, forward * speed);
    this.changed();
  }

  sorted({ order, count }) {
    this.painter.upload(order, count);
    this.spare = order;
    this.sorting = false;
    this.fresh = true;
  }

  sort() {
    if (!this.stale || this.sorting) return;
    const { position, forward } = this.camera;
    const order = this.spare, { near } = this.scene, { time } = this.clock;
    this.worker.postMessage({ position, forward, near, time, order }, order ? [order.buffer] : []);
    this.spare = null;
    this.sorting = true;
    this.stale = false;
  }

  advance(seconds) {
    if (this.controls.advance(Math.min(seconds, 0.1))) this.moved = true;
    if (this.clock.advance(Math.min(seconds, 0.5))) this.moved = true;
    if (this.turning) {
      this.camera.orbit(-TURN * Math.min(seconds, 0.1), 0);
      this.moved = true;
    }
    if (this.flight) {
      const { from, to } = this.flight;
      this.flight.share = Math.min(1, this.flight.share + seconds / FLIGHT_SECONDS);
      const s = this.flight.share;
      this.camera.blend(from, to, s * s * (3 - 2 * s));
      this.moved = true;
      if (s >= 1) this.flight = null;
    }
  }

  frame(now) {
    const seconds = (now - this.last) / 1000;
    this.last = now;
    this.advance(seconds);
    const moving = this.moved;
    if (moving) {
      document.body.dataset.state = "moving";
      this.stale = true;
      this.rested = 0;
      this.frames.push(now);
      if (this.frames.length > 5) this.pace();
    } else this.rested += seconds;
    this.frames = this.frames.filter((time) => now - time < 1000);
    const sharpen = !moving && this.rested > REST && this.scale < 1;
    if (sharpen) this.scale = 1;
    this.sort();
    if (moving || this.fresh || sharpen) {
      this.paint();
      this.fresh = this.moved = false;
    } else if (this.scale === 1 && !this.sorting && !this.stale)
      document.body.dataset.state = "still";
    this.tell(moving);
    requestAnimationFrame((time) => this.frame(time));
  }

  // Fewer pixels when frames come too slowly, more when they come fast.
  pace() {
    const last = this.frames.slice(-5), seconds = (last[4] - last[0]) / 4000;
    if (seconds > SLOWEST) this.scale = Math.max(LEAST_SCALE, this.scale * 0.85);
    else if (seconds < FASTEST) this.scale = Math.min(1, this.scale / 0.95);
  }

  paint() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2) * this.scale;
    this.painter.resize(Math.max(1, Math.round(innerWidth * ratio)), Math.max(1, Math.round(innerHeight * ratio)));
    this.painter.draw(this.camera, this.clock.time);
  }

  tell(moving) {
    const where = this.camera.position.map((value, i) => (value + this.scene.origin[i]).toPrecision(4));
    const rate = this.frames.length > 1 ? (1000 * (this.frames.length - 1)) / (this.frames.at(-1) - this.frames[0]) : 0;
    const pace = moving && rate ? `${rate.toFixed(0)} fps` : "still";
    const text = `${this.scene.layout.count.toLocaleString("en")} Gaussians · ${pace} · at ${where.join(" ")}`;
    if (byId("status").textContent !== text) byId("status").textContent = text;
  }
}

async function start() {
  const canvas = byId("picture");
  const scene = JSON.parse(byId("scene").textContent);
  const content = unpacked(await inflated(bytesOf(byId("data").textContent)), scene.layout);
  byId("data").remove();
  const painter = new Painter(canvas, scene, content);
  const source = new Blob([byId("sorter").textContent], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(source));
  worker.onerror = () => fail("Sorting failed; reload the page.");
  const { means, motion } = content;
  const buffers = motion ? [motion.velocities, motion.times, motion.lives] : [];
  worker.postMessage({ means, motion }, [means, ...buffers].map((array) => array.buffer));
  canvas.addEventListener("webglcontextlost", () => fail("The browser took the graphics card away; reload the page."));
  new Viewer(scene, painter, worker);
}

start().catch((error) => fail(error.message));
