// One Gaussian to one splat: screen position, conic, opacity, color, and the way back of gradients.
//
// p = W mean + t in camera axes; M = W R diag(s), so the covariance in camera axes is M M^T. Pinhole
// and orthographic cameras take the local affine map J (EWA, Zwicker et al. 2001; Kerbl et al. 2023):
// covariance = A A^T with A = J M. Distorted and fisheye lenses take the unscented transform (Julier
// and Uhlmann 1997; 3DGUT, Wu et al. 2025, section 4.1, alpha 1, beta 2, kappa 0): the points p and
// p +- sqrt(3) M_j go through the exact lens; mean and covariance of the six and seven images are the
// splat's. A low-pass of `blur` pixels^2 is added to the covariance's diagonal.
//
// A splat is SPLAT_ROW floats: x y a b | c opacity red green | blue depth extent side, with the conic
// (a, b, c) = inverse of the covariance. Extent is half of the longer side of the box outside of which
// alpha < 1/255, |side| that of the shorter one, negative where that is the horizontal one. All zero
// when culled. Lenses: core/lenses.py.
#pragma once
#include "harmonics.h"
#include "scalar.h"

namespace lg {

constexpr int SPLAT_ROW = 12;
constexpr float SMALLEST_ALPHA = 1.0f / 255.0f;
constexpr float LARGEST_ALPHA = 0.999f;
constexpr float SMALLEST_TRANSMITTANCE = 1e-4f;
constexpr float GUARD = 1.3f;              // the affine map is taken no farther out than this
constexpr float SMALLEST_COMPENSATION = 0.005f;
constexpr float SIGMA_POINT = 1.7320508f;  // sqrt(3)
constexpr float LARGEST_ANGLE = 3.0f;      // of a fisheye's sigma points; behind it the map tears
constexpr float HUGE_VALUE = 1e18f;        // what is not below counts as not finite
constexpr float LARGEST_FLOAT = 3.402823466e38f;

// Values of core.CameraModel
constexpr int PINHOLE = 0, OPENCV = 1, FISHEYE = 2, ORTHOGRAPHIC = 4;

// Mirrors SplatCamera.numbers of cuda/splatting/camera.py.
struct SplatCamera {
  float fx, fy, cx, cy;      // pixels
  float width, height;       // pixels
  float near, blur, limit;   // scene units; pixels^2; of the lens
  float guard;               // OPENCV: no sigma point goes farther out on the plane z = 1
  float lens[8];
};

struct SplatPose {
  float r[9], t[3];          // world to camera, rows
};

LG_HD SplatPose load_pose(const float* w) {  // (3, 4)
  SplatPose pose;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) pose.r[3 * i + j] = w[4 * i + j];
    pose.t[i] = w[4 * i + 3];
  }
  return pose;
}

LG_HD bool usable(float x) { return fabsf(x) < HUGE_VALUE; }  // false for NaN

// Gradients that overflow count as 0.
LG_HD float finite_or_zero(float x) { return fabsf(x) <= LARGEST_FLOAT ? x : 0.0f; }

// ---- lenses: lens coordinates of a point in camera axes, and the pull-back of their gradient

LG_HD void radial_factor(const float* k, float square, float& factor, float& slope) {
  const float above = 1.0f + square * (k[0] + square * (k[1] + square * k[4]));
  const float above_slope = k[0] + square * (2.0f * k[1] + 3.0f * square * k[4]);
  const float below = 1.0f + square * (k[5] + square * (k[6] + square * k[7]));
  const float below_slope = k[5] + square * (2.0f * k[6] + 3.0f * square * k[7]);
  factor = above / below;
  slope = (above_slope - factor * below_slope) / below;
}

LG_HD void fisheye_radius(const SplatCamera& k, float theta, float& value, float& slope) {
  const float inside = minimum(theta, k.limit), square = inside * inside;
  value = inside * (1.0f + square * (k.lens[0] + square * (k.lens[1] + square * (k.lens[2] +
                                                                           square * k.lens[3]))));
  slope = 1.0f + square * (3.0f * k.lens[0] + square * (5.0f * k.lens[1] + square * (7.0f * k.lens[2] +
                                                                                9.0f * square * k.lens[3])));
  if (theta > k.limit) {
    slope = value / k.limit;
    value *= theta / k.limit;
  }
}

// Where a point lies on the plane z = 1, held inside the guard: sigma points beside or behind the
// camera would make a splat as large as the world.
struct Plane {
  float x, y, inverse, shrink;  // 1 / z; below 1 where held
  bool ahead;
};

LG_HD Plane on_plane(const SplatCamera& k, const float* p) {
  Plane g;
  g.ahead = p[2] > k.near;
  g.inverse = 1.0f / maximum(p[2], k.near);
  g.x = p[0] * g.inverse;
  g.y = p[1] * g.inverse;
  const float square = g.x * g.x + g.y * g.y;
  g.shrink = square > k.guard * k.guard ? k.guard / sqrtf(square) : 1.0f;
  g.x *= g.shrink;
  g.y *= g.shrink;
  return g;
}

template <int MODEL>
LG_HD bool lens_point(const SplatCamera& k, const float* p, float& u, float& v) {
  if (MODEL == FISHEYE) {
    const float radius = sqrtf(p[0] * p[0] + p[1] * p[1] + 1e-30f), theta = atan2f(radius, p[2]);
    float value, slope;
    fisheye_radius(k, theta, value, slope);
    u = p[0] * (value / radius);
    v = p[1] * (value / radius);
    return theta < LARGEST_ANGLE;
  }
  const Plane g = on_plane(k, p);
  const float x = g.x, y = g.y, square = x * x + y * y;
  float factor, slope;
  radial_factor(k.lens, minimum(square, k.limit), factor, slope);
  u = x * factor + 2.0f * k.lens[2] * x * y + k.lens[3] * (square + 2.0f * x * x);
  v = y * factor + 2.0f * k.lens[3] * x * y + k.lens[2] * (square + 2.0f * y * y);
  return true;
}

// d_p += J^T (du, dv)
template <int MODEL>
LG_HD void lens_pullback(const SplatCamera& k, const float* p, float du, float dv, float* d_p) {
  if (MODEL == FISHEYE) {
    const float flat = p[0] * p[0] + p[1] * p[1] + 1e-30f, radius = sqrtf(flat);
    const float whole = flat + p[2] * p[2], theta = atan2f(radius, p[2]);
    float value, slope;
    fisheye_radius(k, theta, value, slope);
    const float ratio = value / radius, along = (p[0] * du + p[1] * dv) / radius;
    const float by_radius = slope * p[2] / whole;  // of the image radius
    // (x, y) / radius turns, the radius grows: near the axis both factors are slope / z
    const float turn = (by_radius - ratio) / radius;
    d_p[0] += ratio * du + p[0] * along * turn;
    d_p[1] += ratio * dv + p[1] * along * turn;
    d_p[2] -= along * slope * radius / whole;
    return;
  }
  const Plane g = on_plane(k, p);
  const float x = g.x, y = g.y, square = x * x + y * y, p1 = k.lens[2], p2 = k.lens[3];
  float factor, slope;
  radial_factor(k.lens, minimum(square, k.limit), factor, slope);
  slope = square < k.limit ? 2.0f * slope : 0.0f;
  const float both = slope * x * y + 2.0f * (p1 * x + p2 * y);
  float dx = du * (factor + slope * x * x + 2.0f * p1 * y + 6.0f * p2 * x) + dv * both;
  float dy = dv * (factor + slope * y * y + 6.0f * p1 * y + 2.0f * p2 * x) + du * both;
  if (g.shrink < 1.0f) {  // held on a circle: only what goes along it remains
    const float outwards = (dx * x + dy * y) / square;
    dx = (dx - outwards * x) * g.shrink;
    dy = (dy - outwards * y) * g.shrink;
  }
  d_p[0] += dx * g.inverse;
  d_p[1] += dy * g.inverse;
  if (g.ahead) d_p[2] -= (dx * x + dy * y) / g.shrink * g.inverse;
}

// ---- shapes on the screen

struct SplatShape {
  float u, v;        // screen position, pixels
  float xx, xy, yy;  // covariance without the low-pass
  float determinant; // of that
  float a[6];        // J M, of the affine models
  float points[14];  // lens coordinates of the sigma points, of the others
};

// Where the affine map of a pinhole is taken: p with x/z and y/z inside the guard band.
struct Guarded {
  float x, y;
  bool x_held, y_held;
};

LG_HD Guarded guarded(const SplatCamera& k, const float* p) {
  // The image may lie off the axis: the band is about its own middle.
  const float half_x = 0.5f * GUARD * k.width / k.fx, half_y = 0.5f * GUARD * k.height / k.fy;
  const float mid_x = (0.5f * k.width - k.cx) / k.fx, mid_y = (0.5f * k.height - k.cy) / k.fy;
  const float rx = p[0] / p[2], ry = p[1] / p[2];
  Guarded g;
  g.x = minimum(maximum(rx, mid_x - half_x), mid_x + half_x);
  g.y = minimum(maximum(ry, mid_y - half_y), mid_y + half_y);
  g.x_held = g.x != rx;
  g.y_held = g.y != ry;
  return g;
}

template <int MODEL>
LG_HD bool project_shape(const SplatCamera& k, const float* p, const float* m, SplatShape& s) {
  if (MODEL == PINHOLE || MODEL == ORTHOGRAPHIC) {
    const float inverse = MODEL == PINHOLE ? 1.0f / p[2] : 1.0f;
    const float jx = k.fx * inverse, jy = k.fy * inverse;
    s.u = jx * p[0] + k.cx;
    s.v = jy * p[1] + k.cy;
    Guarded g{0.0f, 0.0f, false, false};
    if (MODEL == PINHOLE) g = guarded(k, p);
    for (int j = 0; j < 3; ++j) {
      s.a[j] = jx * (m[j] - g.x * m[6 + j]);
      s.a[3 + j] = jy * (m[3 + j] - g.y * m[6 + j]);
    }
    const float* a = s.a;
    s.xx = a[0] * a[0] + a[1] * a[1] + a[2] * a[2];
    s.xy = a[0] * a[3] + a[1] * a[4] + a[2] * a[5];
    s.yy = a[3] * a[3] + a[4] * a[4] + a[5] * a[5];
    // as the square of a cross product: xx yy - xy xy has no digits left for long thin splats
    const float nx = a[1] * a[5] - a[2] * a[4], ny = a[2] * a[3] - a[0] * a[5];
    const float nz = a[0] * a[4] - a[1] * a[3];
    s.determinant = nx * nx + ny * ny + nz * nz;
    return true;
  }
  float* q = s.points;
  bool ok = lens_point<MODEL>(k, p, q[0], q[1]);
  float mean_u = 0.0f, mean_v = 0.0f;
  for (int i = 0; i < 6; ++i) {
    const float step = i < 3 ? SIGMA_POINT : -SIGMA_POINT;
    const int j = i % 3;
    const float moved[3] = {p[0] + step * m[j], p[1] + step * m[3 + j], p[2] + step * m[6 + j]};
    ok = lens_point<MODEL>(k, moved, q[2 * i + 2], q[2 * i + 3]) && ok;
    mean_u += q[2 * i + 2];
    mean_v += q[2 * i + 3];
  }
  mean_u *= 1.0f / 6.0f;
  mean_v *= 1.0f / 6.0f;
  s.xx = s.xy = s.yy = 0.0f;
  for (int i = 0; i < 7; ++i) {
    const float weight = i ? 1.0f / 6.0f : 2.0f, du = q[2 * i] - mean_u, dv = q[2 * i + 1] - mean_v;
    s.xx += weight * du * du;
    s.xy += weight * du * dv;
    s.yy += weight * dv * dv;
  }
  s.u = k.fx * mean_u + k.cx;
  s.v = k.fy * mean_v + k.cy;
  s.xx *= k.fx * k.fx;
  s.xy *= k.fx * k.fy;
  s.yy *= k.fy * k.fy;
  s.determinant = maximum(s.xx * s.yy - s.xy * s.xy, 0.0f);
  return ok;
}

// From gradients of position (du, dv) and covariance (gxx, gxy, gyy: entries of the symmetric matrix)
// to those of p and M: d_p and d_m are written.
template <int MODEL>
LG_HD void project_shape_pullback(const SplatCamera& k, const float* p, const float* m,
                                  const SplatShape& s, float du, float dv, float gxx, float gxy,
                                  float gyy, float* d_p, float* d_m) {
  if (MODEL == PINHOLE || MODEL == ORTHOGRAPHIC) {
    const float inverse = MODEL == PINHOLE ? 1.0f / p[2] : 1.0f;
    const float jx = k.fx * inverse, jy = k.fy * inverse;
    Guarded g{0.0f, 0.0f, false, false};
    if (MODEL == PINHOLE) g = guarded(k, p);
    float by_jx = 0.0f, by_jy = 0.0f, by_gx = 0.0f, by_gy = 0.0f;
    for (int j = 0; j < 3; ++j) {
      const float ax = 2.0f * (gxx * s.a[j] + gxy * s.a[3 + j]);
      const float ay = 2.0f * (gxy * s.a[j] + gyy * s.a[3 + j]);
      d_m[j] = jx * ax;
      d_m[3 + j] = jy * ay;
      d_m[6 + j] = -jx * g.x * ax - jy * g.y * ay;
      by_jx += ax * (m[j] - g.x * m[6 + j]);
      by_jy += ay * (m[3 + j] - g.y * m[6 + j]);
      by_gx -= jx * ax * m[6 + j];
      by_gy -= jy * ay * m[6 + j];
    }
    d_p[0] = jx * du;
    d_p[1] = jy * dv;
    d_p[2] = 0.0f;
    if (MODEL == ORTHOGRAPHIC) return;
    d_p[2] = -inverse * (jx * (p[0] * du + by_jx) + jy * (p[1] * dv + by_jy));
    if (!g.x_held) {
      d_p[0] += by_gx * inverse;
      d_p[2] -= by_gx * g.x * inverse;
    }
    if (!g.y_held) {
      d_p[1] += by_gy * inverse;
      d_p[2] -= by_gy * g.y * inverse;
    }
    return;
  }
  const float* q = s.points;
  const float mean_u = (s.u - k.cx) / k.fx, mean_v = (s.v - k.cy) / k.fy;
  // in lens coordinates
  gxx *= k.fx * k.fx;
  gxy *= k.fx * k.fy;
  gyy *= k.fy * k.fy;
  const float off_u = q[0] - mean_u, off_v = q[1] - mean_v;
  const float first_u = 4.0f * (gxx * off_u + gxy * off_v);
  const float first_v = 4.0f * (gxy * off_u + gyy * off_v);
  const float by_u = k.fx * du - first_u, by_v = k.fy * dv - first_v;  // of the mean of the six
  d_p[0] = d_p[1] = d_p[2] = 0.0f;
  lens_pullback<MODEL>(k, p, first_u, first_v, d_p);
  for (int j = 0; j < 9; ++j) d_m[j] = 0.0f;
  for (int i = 0; i < 6; ++i) {
    const float step = i < 3 ? SIGMA_POINT : -SIGMA_POINT;
    const int j = i % 3;
    const float moved[3] = {p[0] + step * m[j], p[1] + step * m[3 + j], p[2] + step * m[6 + j]};
    const float u = q[2 * i + 2] - mean_u, v = q[2 * i + 3] - mean_v;
    const float d_u = (by_u + 2.0f * (gxx * u + gxy * v)) * (1.0f / 6.0f);
    const float d_v = (by_v + 2.0f * (gxy * u + gyy * v)) * (1.0f / 6.0f);
    float d[3] = {0.0f, 0.0f, 0.0f};
    lens_pullback<MODEL>(k, moved, d_u, d_v, d);
    for (int r = 0; r < 3; ++r) {
      d_p[r] += d[r];
      d_m[3 * r + j] += step * d[r];
    }
  }
}

// ---- the whole Gaussian

struct GaussianShape {
  float q[4], inverse_length;   // unit quaternion w x y z, and what it was divided by
  float scale[3], opacity;      // activated
};

// RAW: log scales and opacity logits
template <bool RAW>
LG_HD GaussianShape activate(const float* rotation, const float* scale, float opacity) {
  GaussianShape g;
  float largest = 0.0f, square = 0.0f;  // any length: its square alone may not fit
  for (int i = 0; i < 4; ++i) largest = maximum(fabsf(rotation[i]), largest);
  const float shrink = 1.0f / largest;  // infinite for 0, and so are q and the shape
  for (int i = 0; i < 4; ++i) {
    g.q[i] = rotation[i] * shrink;
    square += g.q[i] * g.q[i];
  }
  const float rest = 1.0f / sqrtf(square);
  g.inverse_length = shrink * rest;
  for (int i = 0; i < 4; ++i) g.q[i] *= rest;
  for (int i = 0; i < 3; ++i) g.scale[i] = RAW ? expf(scale[i]) : scale[i];
  g.opacity = RAW ? 1.0f / (1.0f + expf(-opacity)) : opacity;
  return g;
}

LG_HD void rotation_matrix(const float* q, float* r) {
  const float w = q[0], x = q[1], y = q[2], z = q[3];
  r[0] = 1.0f - 2.0f * (y * y + z * z);
  r[1] = 2.0f * (x * y - w * z);
  r[2] = 2.0f * (x * z + w * y);
  r[3] = 2.0f * (x * y + w * z);
  r[4] = 1.0f - 2.0f * (x * x + z * z);
  r[5] = 2.0f * (y * z - w * x);
  r[6] = 2.0f * (x * z - w * y);
  r[7] = 2.0f * (y * z + w * x);
  r[8] = 1.0f - 2.0f * (x * x + y * y);
}

// Everything both passes need.
struct SplatView {
  float p[3], rotation[9], m[9];
  SplatShape shape;
  float a, b, c;           // conic
  float determinant;       // of the blurred covariance
  float compensation;      // of the opacity, 1 unless antialiased
  bool compensation_held;  // at its smallest value
  float direction[3], inverse_distance;
  bool ok;
};

template <int MODEL>
LG_HD SplatView view_gaussian(const SplatCamera& k, const SplatPose& w, const float* mean,
                              const GaussianShape& g, bool antialiased) {
  SplatView v;
  for (int i = 0; i < 3; ++i)
    v.p[i] = w.r[3 * i] * mean[0] + w.r[3 * i + 1] * mean[1] + w.r[3 * i + 2] * mean[2] + w.t[i];
  const float square = v.p[0] * v.p[0] + v.p[1] * v.p[1] + v.p[2] * v.p[2];
  v.ok = (MODEL == FISHEYE ? square > k.near * k.near : v.p[2] > k.near) && usable(square);
  if (!v.ok) return v;
  rotation_matrix(g.q, v.rotation);
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      v.m[3 * i + j] = (w.r[3 * i] * v.rotation[j] + w.r[3 * i + 1] * v.rotation[3 + j] +
                        w.r[3 * i + 2] * v.rotation[6 + j]) * g.scale[j];
  v.ok = project_shape<MODEL>(k, v.p, v.m, v.shape);
  const SplatShape& s = v.shape;
  const float xx = s.xx + k.blur, yy = s.yy + k.blur;
  v.determinant = s.determinant + k.blur * (s.xx + yy);
  const float inverse = 1.0f / v.determinant;
  v.a = yy * inverse;
  v.b = -s.xy * inverse;
  v.c = xx * inverse;
  v.ok = v.ok && v.determinant > 0.0f && usable(xx + yy) && usable(s.u) && usable(s.v) &&
         v.a > 0.0f && v.c > 0.0f && usable(v.a) && usable(v.c);
  v.compensation = 1.0f;
  v.compensation_held = false;
  if (antialiased) {
    const float ratio = s.determinant * inverse;
    const float least = SMALLEST_COMPENSATION * SMALLEST_COMPENSATION;
    v.compensation_held = !(ratio > least);
    v.compensation = v.compensation_held ? SMALLEST_COMPENSATION : sqrtf(ratio);
  }
  for (int i = 0; i < 3; ++i)
    v.direction[i] = MODEL == ORTHOGRAPHIC
                         ? w.r[6 + i]
                         : mean[i] + w.r[i] * w.t[0] + w.r[3 + i] * w.t[1] + w.r[6 + i] * w.t[2];
  const float* d = v.direction;
  v.inverse_distance = 1.0f / sqrtf(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
  for (int i = 0; i < 3; ++i) v.direction[i] *= v.inverse_distance;
  return v;
}

// The exponent at which alpha falls to 1/255, with room for rounding; not positive: never seen.
LG_HD float largest_sigma(float opacity) { return logf(255.0f * opacity); }

// Writes SPLAT_ROW floats and returns the sort depth (infinite when culled). `harmonics` points to
// BANDS^2 rows of 3.
template <int MODEL, int BANDS>
LG_HD float write_splat(const SplatCamera& k, const SplatView& v, float opacity,
                        const float* harmonics_of, float* row) {
  for (int i = 0; i < SPLAT_ROW; ++i) row[i] = 0.0f;
  const float infinite = float_from_bits(0x7f800000u);
  if (!v.ok) return infinite;
  const float shown = opacity * v.compensation, most = largest_sigma(shown);
  if (!(most > 0.0f) || !(shown <= 1.0f)) return infinite;
  const float wide = sqrtf(2.0f * most * (v.shape.xx + k.blur));
  const float high = sqrtf(2.0f * most * (v.shape.yy + k.blur));
  if (!(v.shape.u + wide > 0.0f && v.shape.u - wide < k.width && v.shape.v + high > 0.0f &&
        v.shape.v - high < k.height))
    return infinite;
  float basis[BANDS * BANDS], color[3] = {0.5f, 0.5f, 0.5f};
  harmonics<BANDS>(v.direction[0], v.direction[1], v.direction[2], basis);
  for (int i = 0; i < BANDS * BANDS; ++i)
    for (int j = 0; j < 3; ++j) color[j] += basis[i] * harmonics_of[3 * i + j];
  if (!usable(color[0] + color[1] + color[2])) return infinite;
  row[0] = v.shape.u;
  row[1] = v.shape.v;
  row[2] = v.a;
  row[3] = v.b;
  row[4] = v.c;
  row[5] = shown;
  for (int j = 0; j < 3; ++j) row[6 + j] = maximum(color[j], 0.0f);
  float distance = v.p[2];
  if (MODEL == FISHEYE) distance = sqrtf(v.p[0] * v.p[0] + v.p[1] * v.p[1] + v.p[2] * v.p[2]);
  row[9] = distance;
  row[10] = maximum(wide, high);
  row[11] = wide >= high ? high : -wide;
  return distance;
}

struct GaussianGradient {
  float mean[3], q[4], scale[3], opacity;
  float pose_r[9], pose_t[3];
};

// `d_row` is the gradient by the splat's row; `values` are the harmonics, overwritten by their
// gradient. POSE: also that by world to camera. Every result is finite.
template <int MODEL, bool RAW, int BANDS, bool POSE>
LG_HD void splat_gradient(const SplatCamera& k, const SplatPose& w, const float* mean,
                          const GaussianShape& g, const SplatView& v, bool antialiased,
                          const float* row, const float* d_row, float* values,
                          GaussianGradient& out) {
  // color
  float d_color[3], basis[BANDS * BANDS], by_basis[BANDS * BANDS];
  for (int j = 0; j < 3; ++j) d_color[j] = row[6 + j] > 0.0f ? d_row[6 + j] : 0.0f;
  harmonics<BANDS>(v.direction[0], v.direction[1], v.direction[2], basis);
  for (int i = 0; i < BANDS * BANDS; ++i) {
    by_basis[i] = 0.0f;
    for (int j = 0; j < 3; ++j) {
      by_basis[i] += values[3 * i + j] * d_color[j];
      values[3 * i + j] = basis[i] * d_color[j];
    }
  }
  float d[3];
  harmonics_gradient<BANDS>(v.direction[0], v.direction[1], v.direction[2], by_basis, d[0], d[1],
                            d[2]);
  const float radial = d[0] * v.direction[0] + d[1] * v.direction[1] + d[2] * v.direction[2];
  for (int i = 0; i < 3; ++i) {
    d[i] = (d[i] - v.direction[i] * radial) * v.inverse_distance;
    out.mean[i] = MODEL == ORTHOGRAPHIC ? 0.0f : d[i];
  }
  // opacity, and through the compensation the covariance
  const float d_shown = d_row[5];
  out.opacity = d_shown * v.compensation;
  if (RAW) out.opacity *= g.opacity * (1.0f - g.opacity);
  // conic to covariance: -K G K
  const float ga = d_row[2], gb = 0.5f * d_row[3], gc = d_row[4];
  const float h0 = v.a * ga + v.b * gb, h1 = v.a * gb + v.b * gc, h2 = v.b * ga + v.c * gb;
  const float h3 = v.b * gb + v.c * gc;
  float gxx = -(h0 * v.a + h1 * v.b), gxy = -(h0 * v.b + h1 * v.c), gyy = -(h2 * v.b + h3 * v.c);
  const SplatShape& s = v.shape;
  if (antialiased && !v.compensation_held) {
    // compensation^2 = det0 / det1
    const float by_ratio = d_shown * g.opacity / (2.0f * v.compensation) / v.determinant;
    const float by_det = -by_ratio * v.compensation * v.compensation;
    gxx += by_ratio * s.yy + by_det * (s.yy + k.blur);
    gyy += by_ratio * s.xx + by_det * (s.xx + k.blur);
    gxy -= (by_ratio + by_det) * s.xy;
  }
  float d_p[3], d_m[9];
  project_shape_pullback<MODEL>(k, v.p, v.m, s, d_row[0], d_row[1], gxx, gxy, gyy, d_p, d_m);
  for (int i = 0; i < 3; ++i) d_p[i] = finite_or_zero(d_p[i]);
  for (int i = 0; i < 9; ++i) d_m[i] = finite_or_zero(d_m[i]);
  if (MODEL == FISHEYE) {
    for (int i = 0; i < 3; ++i) d_p[i] += d_row[9] * v.p[i] / row[9];
  } else {
    d_p[2] += d_row[9];
  }
  for (int i = 0; i < 3; ++i)
    out.mean[i] += w.r[i] * d_p[0] + w.r[3 + i] * d_p[1] + w.r[6 + i] * d_p[2];
  // M = W R S
  float d_rotation[9];
  for (int j = 0; j < 3; ++j) {
    out.scale[j] = 0.0f;
    for (int i = 0; i < 3; ++i) {
      const float turned = w.r[i] * d_m[j] + w.r[3 + i] * d_m[3 + j] + w.r[6 + i] * d_m[6 + j];
      out.scale[j] += turned * v.rotation[3 * i + j];
      d_rotation[3 * i + j] = turned * g.scale[j];
    }
    if (RAW) out.scale[j] *= g.scale[j];
  }
  const float qw = g.q[0], x = g.q[1], y = g.q[2], z = g.q[3];
  const float* e = d_rotation;
  float dq[4];
  dq[0] = 2.0f * (z * (e[3] - e[1]) + y * (e[2] - e[6]) + x * (e[7] - e[5]));
  dq[1] = 2.0f * (y * (e[1] + e[3]) + z * (e[2] + e[6]) + qw * (e[7] - e[5])) -
          4.0f * x * (e[4] + e[8]);
  dq[2] = 2.0f * (x * (e[1] + e[3]) + qw * (e[2] - e[6]) + z * (e[5] + e[7])) -
          4.0f * y * (e[0] + e[8]);
  dq[3] = 2.0f * (qw * (e[3] - e[1]) + x * (e[2] + e[6]) + y * (e[5] + e[7])) -
          4.0f * z * (e[0] + e[4]);
  const float along = dq[0] * qw + dq[1] * x + dq[2] * y + dq[3] * z;
  for (int i = 0; i < 4; ++i)
    out.q[i] = finite_or_zero((dq[i] - g.q[i] * along) * g.inverse_length);
  for (int i = 0; i < 3; ++i) {
    out.mean[i] = finite_or_zero(out.mean[i]);
    out.scale[i] = finite_or_zero(out.scale[i]);
  }
  out.opacity = finite_or_zero(out.opacity);
  if (!POSE) return;
  for (int i = 0; i < 3; ++i) {
    out.pose_t[i] = d_p[i];
    for (int j = 0; j < 3; ++j) {
      float sum = d_p[i] * mean[j];
      for (int n = 0; n < 3; ++n) sum += d_m[3 * i + n] * v.rotation[3 * j + n] * g.scale[n];
      out.pose_r[3 * i + j] = sum;
    }
  }
  for (int i = 0; i < 3; ++i) {
    if (MODEL == ORTHOGRAPHIC) {
      out.pose_r[6 + i] += d[i];
      continue;
    }
    // direction = mean + W^T t
    for (int j = 0; j < 3; ++j) {
      out.pose_r[3 * i + j] += w.t[i] * d[j];
      out.pose_t[i] += w.r[3 * i + j] * d[j];
    }
  }
  for (int i = 0; i < 3; ++i) out.pose_t[i] = finite_or_zero(out.pose_t[i]);
  for (int i = 0; i < 9; ++i) out.pose_r[i] = finite_or_zero(out.pose_r[i]);
}

}  // namespace lg
