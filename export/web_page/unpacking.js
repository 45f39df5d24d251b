// From the bytes of the page to arrays and textures.

async function inflated(bytes) {
  if (!("DecompressionStream" in window))
    throw new Error("This page needs a newer browser: one of 2023 or later unpacks it.");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Bytes in planes (splat_files/planes.py) to means (G, 3) and the words of both textures; of Gaussians
// that move (splat_files/moving_packing.py) also what the order at a time depends on.
function unpacked(planes, layout) {
  const count = layout.count, rows = Math.ceil(count / ROW), texels = layout.moving ? 3 : 2, words = 4 * texels;
  const plane = (at) => planes.subarray(at * count, (at + 1) * count);
  const means = new Float32Array(3 * count), step = 2 ** -layout.fractional_bits;
  const bodies = new Uint32Array(rows * ROW * words), floats = new Float32Array(bodies.buffer);
  for (let axis = 0; axis < 3; ++axis) {
    const [low, middle, high] = [plane(3 * axis), plane(3 * axis + 1), plane(3 * axis + 2)];
    for (let i = 0, sum = 0; i < count; ++i) {
      sum += low[i] | (middle[i] << 8) | (high[i] << 16);
      means[3 * i + axis] = floats[words * i + axis] = ((sum << 8) >> 8) * step; // 24 bits with a sign
    }
  }
  const word = (at, parts, place) => {
    for (let part = 0; part < parts; ++part) {
      const column = plane(at + part);
      for (let i = 0; i < count; ++i) bodies[words * i + place] |= column[i] << (8 * part);
    }
  };
  word(12, 4, 3);
  word(9, 3, 4);
  const opacity = plane(16);
  for (let i = 0; i < count; ++i) bodies[words * i + 4] |= opacity[i] << 24;
  word(17, 3, 5);
  const { degree } = layout, waves = new Uint32Array(rows * ROW * 4 * degree), bytes = new Uint8Array(waves.buffer);
  const harmonics = 3 * ((degree + 1) ** 2 - 1);
  for (let at = 0; at < harmonics; ++at) {
    const column = plane(20 + at);
    for (let i = 0; i < count; ++i) bytes[16 * degree * i + at] = column[i];
  }
  const rest = planes.subarray((20 + harmonics) * count);
  const motion = layout.moving ? movement(rest, layout, opacity, floats, words) : null;
  return { means, bodies, waves, rows, texels, motion };
}

// Fills the words of those that move, the first ones: own time and rate of fading behind the color,
// then velocity and plateau. Others keep 0 in all of them, which is to stand still and not to fade.
function movement(planes, layout, opacity, floats, words) {
  const count = layout.moving;
  const plane = Array.from({ length: 16 }, (_, at) => planes.subarray(at * count, (at + 1) * count));
  const upper = new Uint32Array(1), value = new Float32Array(upper.buffer);
  const float = (at, i) => {
    upper[0] = (plane[at][i] << 8) | (plane[at + 1][i] << 16) | (plane[at + 2][i] << 24);
    return value[0];
  };
  const fine = (at, i, low, step) => Math.exp(low + step * (plane[at][i] | (plane[at + 1][i] << 8)));
  const velocities = new Float32Array(3 * count), times = new Float32Array(count), lives = new Float32Array(count);
  for (let i = 0; i < count; ++i) {
    times[i] = float(0, i);
    const duration = fine(12, i, layout.duration_low, layout.duration_step);
    const plateau = layout.plateau_step ? fine(14, i, layout.plateau_low, layout.plateau_step) : 0;
    // how long before and after its time it is seen at all
    lives[i] = plateau + duration * Math.sqrt(2 * Math.max(0, Math.log(Math.max(opacity[i], 1))));
    floats[words * i + 6] = times[i];
    floats[words * i + 7] = 1 / (duration * duration);
    for (let axis = 0; axis < 3; ++axis)
      floats[words * i + 8 + axis] = velocities[3 * i + axis] = float(3 + 3 * axis, i);
    floats[words * i + 11] = plateau;
  }
  return { velocities, times, lives };
}
