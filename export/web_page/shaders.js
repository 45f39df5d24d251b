// How a Gaussian becomes a splat: EWA splatting (Zwicker et al. 2001) as in 3D Gaussian Splatting
// (Kerbl et al. 2023), with the numbers of lumigraph's rasteriser (cuda/common/splat.h).
//
// Texels of 4 words. `bodies` has two for each Gaussian: x y z (bits of floats) and the rotation;
// scales and opacity (4 bytes), color (3 bytes), 0, 0; where there are any that move, own time
// and rate of fading (1 over the variance in time) instead of the 0s, and a third with velocity and
// plateau. `waves` has the bytes of harmonics beyond
// degree 0, red green blue for one after the other.

const ROW = 1024; // Gaussians in a row of a texture

const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
layout(location = 0) in uint gaussian;
uniform usampler2D bodies, waves;
uniform mat3 turn;                     // world to camera
uniform vec3 eye;
uniform vec2 size, focal;              // pixels
uniform float near, time;
uniform vec2 scaleRange, colorRange;   // low end and step
uniform bool antialiased;
flat out vec4 shade;                   // color and opacity
out vec2 offset;                       // from the mean, in standard deviations

const float LOW_PASS = 0.3, GUARD = 1.3, LEAST_COMPENSATION = 0.005;

ivec2 place(int texels, int texel) {
  int index = int(gaussian);
  return ivec2(index % ${ROW} * texels + texel, index / ${ROW});
}

vec4 bytes(uint word) {
  return vec4(word & 255u, word >> 8 & 255u, word >> 16 & 255u, word >> 24);
}

#ifdef MOVING
const int BODY = 3;
#else
const int BODY = 2;
#endif

// Smallest three: the place of the largest part (x y z w) in 2 bits, the others in 10 each.
mat3 rotation(uint word) {
  uint largest = word >> 30, shift = 20u;
  vec4 q = vec4(0.0);
  float rest = 1.0;
  for (uint i = 0u; i < 4u; ++i) {
    if (i == largest) continue;
    uint part = word >> shift;
    float value = float(part & 511u) * (0.70710678 / 511.0);
    q[i] = (part & 512u) != 0u ? -value : value;
    rest -= value * value;
    shift -= 10u;
  }
  q[largest] = sqrt(max(rest, 0.0));
  float x = q.x, y = q.y, z = q.z, w = q.w;
  return mat3(  // columns
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

#if DEGREE > 0
const int TEXELS = DEGREE;
uvec4 words[TEXELS];

float coefficient(int at) {
  uint word = words[at / 16][at / 4 % 4];
  return (float(word >> uint(8 * (at % 4)) & 255u) - 128.0) / 128.0;
}

vec3 wave(int k) {
  int at = 3 * (k - 1);
  return vec3(coefficient(at), coefficient(at + 1), coefficient(at + 2));
}

// Order and signs as in core/harmonics.py.
vec3 harmonics(vec3 d) {
  for (int t = 0; t < TEXELS; ++t) words[t] = texelFetch(waves, place(TEXELS, t), 0);
  float x = d.x, y = d.y, z = d.z;
  vec3 sum = 0.48860251 * (z * wave(2) - y * wave(1) - x * wave(3));
#if DEGREE > 1
  sum += 1.09254843 * (x * y * wave(4) - y * z * wave(5) - x * z * wave(7));
  sum += 0.31539157 * (3.0 * z * z - 1.0) * wave(6) + 0.54627422 * (x * x - y * y) * wave(8);
#endif
#if DEGREE > 2
  float xx = x * x, yy = y * y, zz = z * z;
  sum += 0.59004359 * (y * (yy - 3.0 * xx) * wave(9) + x * (3.0 * yy - xx) * wave(15));
  sum += 2.89061144 * x * y * z * wave(10) + 1.44530572 * z * (xx - yy) * wave(14);
  sum += 0.45704580 * (1.0 - 5.0 * zz) * (y * wave(11) + x * wave(13));
  sum += 0.37317633 * z * (5.0 * zz - 3.0) * wave(12);
#endif
  return sum;
}
#endif

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0);  // outside, unless all goes well
  shade = vec4(0.0);
  offset = vec2(0.0);
  uvec4 body = texelFetch(bodies, place(BODY, 0), 0), looks = texelFetch(bodies, place(BODY, 1), 0);
  vec3 world = uintBitsToFloat(body.xyz) - eye;
  float share = 1.0;
#ifdef MOVING
  // the position is that of its own time, held within [0, 1]
  vec4 motion = uintBitsToFloat(texelFetch(bodies, place(BODY, 2), 0));
  vec2 fading = uintBitsToFloat(looks.zw);
  world += motion.xyz * (time - clamp(fading.x, 0.0, 1.0));
  float away = max(abs(time - fading.x) - motion.w, 0.0);
  share = exp(-0.5 * fading.y * away * away);
#endif
  vec3 mean = turn * world;
  if (!(mean.z > near)) return;
  vec4 sizes = bytes(looks.x);
  mat3 axes = turn * rotation(body.w);
  for (int j = 0; j < 3; ++j) axes[j] *= exp(scaleRange.x + scaleRange.y * sizes[j]);

  // covariance on the screen: rows of J M, with the affine map held inside the guard band
  vec2 plane = mean.xy / mean.z, most = 0.5 * GUARD * size / focal;
  vec2 held = clamp(plane, -most, most), scale = focal / mean.z;
  mat3 rows = transpose(axes);
  vec3 first = scale.x * (rows[0] - held.x * rows[2]), second = scale.y * (rows[1] - held.y * rows[2]);
  float xx = dot(first, first), xy = dot(first, second), yy = dot(second, second);
  vec3 normal = cross(first, second);
  float wide = xx + LOW_PASS, high = yy + LOW_PASS, sharp = dot(normal, normal);
  float determinant = sharp + LOW_PASS * (xx + high);
  float opacity = sizes.w / 255.0 * share;
  if (antialiased) opacity *= max(sqrt(sharp / determinant), LEAST_COMPENSATION);
  float reach = log(255.0 * opacity);
  if (!(reach > 0.0) || !(wide + high < 1e18)) return;

  // the ellipse outside of which alpha < 1/255
  float middle = 0.5 * (wide + high), apart = length(vec2(0.5 * (wide - high), xy));
  float longer = middle + apart, shorter = determinant / longer;
  float angle = apart > 1e-6 * middle ? 0.5 * atan(2.0 * xy, wide - high) : 0.0;
  vec2 along = vec2(cos(angle), sin(angle)), across = vec2(-along.y, along.x);
  vec2 corner = vec2(2 * (gl_VertexID & 1) - 1, 2 * (gl_VertexID >> 1) - 1);
  offset = corner * sqrt(2.0 * reach) * 1.001;
  vec2 center = plane * focal + 0.5 * size;
  vec2 extent = sqrt(2.0 * reach * vec2(wide, high));
  if (any(lessThan(center + extent, vec2(0.0))) || any(greaterThan(center - extent, size))) return;
  vec2 pixel = center + offset.x * sqrt(longer) * along + offset.y * sqrt(shorter) * across;
  vec2 ndc = 2.0 * pixel / size - 1.0;
  gl_Position = vec4(ndc.x, -ndc.y, 0.0, 1.0);

  vec3 color = colorRange.x + colorRange.y * bytes(looks.y).xyz;
#if DEGREE > 0
  color += harmonics(normalize(world));
#endif
  shade = vec4(max(color, 0.0), opacity);
}`;

const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
flat in vec4 shade;
in vec2 offset;
out vec4 premultiplied;

void main() {
  float alpha = min(shade.a * exp(-0.5 * dot(offset, offset)), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  premultiplied = vec4(shade.rgb * alpha, alpha);
}`;

// One triangle over the screen: the background behind what was blended.
const FINISH_VERTEX = `#version 300 es
void main() {
  gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}`;

const FINISH_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D blended, sky;
uniform vec3 background;
uniform bool hasSky;
uniform mat3 turn;
uniform vec2 size, focal;
out vec4 shown;
const float PI = 3.14159265;

// The sky is a picture over longitude about z and the angle from z.
vec3 behind() {
  if (!hasSky) return background;
  vec2 pixel = vec2(gl_FragCoord.x, size.y - gl_FragCoord.y);
  vec3 d = normalize(vec3((pixel - 0.5 * size) / focal, 1.0)) * turn;  // times the transpose
  return texture(sky, vec2(atan(d.y, d.x) / (2.0 * PI) + 0.5, acos(clamp(d.z, -1.0, 1.0)) / PI)).rgb;
}

void main() {
  vec4 sum = texelFetch(blended, ivec2(gl_FragCoord.xy), 0);
  shown = vec4(clamp(sum.rgb + (1.0 - sum.a) * behind(), 0.0, 1.0), 1.0);
}`;
