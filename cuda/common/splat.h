// What a camera sees of one Gaussian in space: screen position, conic, opacity, color, and the way
// back of gradients. Whatever its parameters are (gaussian.h, gaussian4d.h), here it is a mean, three
// axes and an opacity.
//
// p = W mean + t in camera axes; M = W axes, so the covariance in camera axes is M M^T. Pinhole and
// orthographic cameras take the local affine map J (EWA, Zwicker et al. 2001; Kerbl et al. 2023):
// covariance = A A^T with A = J M. Distorted and fisheye lenses take the unscented transform (Julier
// and Uhlmann 1997; 3DGUT, Wu et al. 2025, section 4.1, alpha 1, beta 2, kappa 0): the points p and
// p +- sqrt(3) M_j go through the exact lens; mean and covariance of the six and seven images are the
// splat's. A low-pass of `blur` pixels^2 is added to the covariance's diagonal.
//
// A splat is SPLAT_ROW floats: x y a b | c opacity red green | blue depth extent side, with the conic
// (a, b, c) = inverse of the covariance. Extent is half of the longer side of the box outside of which
// alpha < 1/255, |side| that of the shorter one, negative where that is the horizontal one. All zero
// when culled.
#pragma once
#include "harmonics.h"
#include "splat_lens.h"

namespace lg {

constexpr int SPLAT_ROW = 12;
constexpr float SMALLEST_ALPHA = 1.0f / 255.0f;
constexpr float LARGEST_ALPHA = 0.999f;
constexpr float SMALLEST_TRANSMITTANCE = 1e-4f;
constexpr float GUARD = 1.3f;              // the affine map is taken no farther out than this
constexpr float SMALLEST_COMPENSATION = 0.005f;
constexpr float SIGMA_POINT = 1.7320508f;  // sqrt(3)

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

// ---- the whole splat

// Everything both passes need.
struct SplatView {
  float p[3], m[9];
  SplatShape shape;
  float a, b, c;           // conic
  float determinant;       // of the blurred covariance
  float compensation;      // of the opacity, 1 unless antialiased
  bool compensation_held;  // at its smallest value
  float direction[3], inverse_distance;
  bool ok;
};

// `axes` (3, 3): columns are standard deviations along three directions in the world.
template <int MODEL>
LG_HD SplatView view_axes(const SplatCamera& k, const SplatPose& w, const float* mean,
                          const float* axes, bool antialiased) {
  SplatView v;
  for (int i = 0; i < 3; ++i)
    v.p[i] = w.r[3 * i] * mean[0] + w.r[3 * i + 1] * mean[1] + w.r[3 * i + 2] * mean[2] + w.t[i];
  const float square = v.p[0] * v.p[0] + v.p[1] * v.p[1] + v.p[2] * v.p[2];
  v.ok = (MODEL == FISHEYE ? square > k.near * k.near : v.p[2] > k.near) && usable(square);
  if (!v.ok) return v;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      v.m[3 * i + j] = w.r[3 * i] * axes[j] + w.r[3 * i + 1] * axes[3 + j] +
                       w.r[3 * i + 2] * axes[6 + j];
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

// Half sides of the box outside of which alpha stays below 1/255; false if that is all of the image.
LG_HD bool reaches_image(const SplatCamera& k, const SplatView& v, float shown, float& wide,
                         float& high) {
  const float most = largest_sigma(shown);
  wide = sqrtf(2.0f * most * (v.shape.xx + k.blur));
  high = sqrtf(2.0f * most * (v.shape.yy + k.blur));
  return most > 0.0f && v.shape.u + wide > 0.0f && v.shape.u - wide < k.width &&
         v.shape.v + high > 0.0f && v.shape.v - high < k.height;
}

// Writes SPLAT_ROW floats and returns the sort depth (infinite when culled). `harmonics` points to
// BANDS^2 rows of 3.
template <int MODEL, int BANDS>
LG_HD float write_splat(const SplatCamera& k, const SplatView& v, float opacity,
                        const float* harmonics_of, float* row) {
  for (int i = 0; i < SPLAT_ROW; ++i) row[i] = 0.0f;
  const float infinite = float_from_bits(0x7f800000u);
  if (!v.ok) return infinite;
  const float shown = opacity * v.compensation;
  float wide, high;
  if (!reaches_image(k, v, shown, wide, high) || !(shown <= 1.0f)) return infinite;
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

struct AxesGradient {
  float mean[3], axes[9], opacity;  // opacity: of the number in [0, 1]
  float pose_r[9], pose_t[3];
};

// `d_row` is the gradient by the splat's row; `values` are the harmonics, overwritten by their
// gradient. POSE: also that by world to camera. Every result is finite but that by the axes, which
// is made of finite numbers.
template <int MODEL, int BANDS, bool POSE>
LG_HD void splat_gradient(const SplatCamera& k, const SplatPose& w, const float* mean,
                          const float* axes, float opacity, const SplatView& v, bool antialiased,
                          const float* row, const float* d_row, float* values, AxesGradient& out) {
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
  out.opacity = finite_or_zero(d_shown * v.compensation);
  // conic to covariance: -K G K
  const float ga = d_row[2], gb = 0.5f * d_row[3], gc = d_row[4];
  const float h0 = v.a * ga + v.b * gb, h1 = v.a * gb + v.b * gc, h2 = v.b * ga + v.c * gb;
  const float h3 = v.b * gb + v.c * gc;
  float gxx = -(h0 * v.a + h1 * v.b), gxy = -(h0 * v.b + h1 * v.c), gyy = -(h2 * v.b + h3 * v.c);
  const SplatShape& s = v.shape;
  if (antialiased && !v.compensation_held) {
    // compensation^2 = det0 / det1
    const float by_ratio = d_shown * opacity / (2.0f * v.compensation) / v.determinant;
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
  for (int i = 0; i < 3; ++i) {
    out.mean[i] = finite_or_zero(out.mean[i]);
    for (int j = 0; j < 3; ++j)
      out.axes[3 * i + j] = w.r[i] * d_m[j] + w.r[3 + i] * d_m[3 + j] + w.r[6 + i] * d_m[6 + j];
  }
  if (!POSE) return;
  for (int i = 0; i < 3; ++i) {
    out.pose_t[i] = d_p[i];
    for (int j = 0; j < 3; ++j) {
      float sum = d_p[i] * mean[j];
      for (int n = 0; n < 3; ++n) sum += d_m[3 * i + n] * axes[3 * j + n];
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
