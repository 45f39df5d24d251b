// Web Worker: the order of Gaussians from back to front, by depth along the optical axis.
//
// A counting sort by 16 bits. Floats above 0 sort like their bits read as whole numbers: the range of
// bits between the nearest and the farthest depth is divided into 65536 buckets, finer near the
// camera. Gaussians nearer than `near` are left out, and those that are not seen at the time.
"use strict";

const BUCKETS = 65536;
let means = new Float32Array(0);
let motion = null; // velocities, own times and lives of the first ones; others stand still
let depths = new Float32Array(0);
let bits = new Uint32Array(0);
let starts = new Uint32Array(BUCKETS);

onmessage = ({ data }) => {
  if (data.means) {
    ({ means, motion } = data);
    depths = new Float32Array(means.length / 3);
    bits = new Uint32Array(depths.buffer);
    return;
  }
  const order = data.order && data.order.length === depths.length ? data.order : new Uint32Array(depths.length);
  const count = sort(data.position, data.forward, data.near, data.time, order);
  postMessage({ order, count }, [order.buffer]);
};

// How far along the axis the motion of Gaussian i has brought it; NaN where it is not there.
function motionAlong(i, fx, fy, fz, time) {
  const own = motion.times[i], v = motion.velocities, j = 3 * i;
  if (!(Math.abs(time - own) <= motion.lives[i])) return NaN;
  return (v[j] * fx + v[j + 1] * fy + v[j + 2] * fz) * (time - Math.max(0, Math.min(1, own)));
}

function sort(position, forward, near, time, order) {
  const [fx, fy, fz] = forward, moving = motion ? motion.times.length : 0;
  const shift = position[0] * fx + position[1] * fy + position[2] * fz;
  let low = 0xffffffff, high = 0, count = 0;
  for (let i = 0, j = 0; i < depths.length; ++i, j += 3) {
    let depth = means[j] * fx + means[j + 1] * fy + means[j + 2] * fz - shift;
    if (i < moving) depth += motionAlong(i, fx, fy, fz, time);
    if (!(depth > near)) {
      depths[i] = 0;
      continue;
    }
    depths[i] = depth;
    if (bits[i] < low) low = bits[i];
    if (bits[i] > high) high = bits[i];
    ++count;
  }
  if (!count) return 0;
  const scale = (BUCKETS - 1) / Math.max(high - low, 1);
  starts.fill(0);
  for (let i = 0; i < bits.length; ++i) {
    if (!bits[i]) continue;
    bits[i] = 1 + (((high - bits[i]) * scale) | 0); // 1 is the farthest; 0 stays left out
    ++starts[bits[i] - 1];
  }
  for (let bucket = 0, start = 0; bucket < BUCKETS; ++bucket) {
    const next = start + starts[bucket];
    starts[bucket] = start;
    start = next;
  }
  for (let i = 0; i < bits.length; ++i) if (bits[i]) order[starts[bits[i] - 1]++] = i;
  return count;
}
