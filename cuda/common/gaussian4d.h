// One Gaussian in space and time: from its parameters to the mean, axes and opacity that it has at a
// time, and the way back. Equations and their sources: reference/gaussian_slicing.py.
#pragma once
#include "gaussian.h"

namespace lg {

// A time, and what holds every Gaussian's standard deviation in time from below.
struct Moment {
  float time, shortest;
};

// Everything both passes need.
struct TimeSlice {
  float a[4], b[4], inverse_a, inverse_b;  // unit quaternions of the rotor, and 1 / lengths
  float scale[4], plateau;                 // activated
  float peak, decay, opacity;              // sigmoid, what time leaves of it, their product
  float root[16];                          // M = R S, row by row
  float unit[4], length, duration;         // last row of M, its length, and that held from below
  float later, fade;                       // t - mu_t; what of it lies outside of the plateau
  float along[3];                          // (first rows of M) unit
  float mean[3], axes[9];
  bool ok;                                 // not faded below 1/255, and finite as far as known
};

LG_HD void rotor_quaternions(const float* r, float* a, float* b) {
  a[0] = r[0] + r[7], b[0] = r[0] - r[7];
  a[1] = r[1] - r[6], b[1] = r[1] + r[6];
  a[2] = r[2] + r[5], b[2] = r[2] - r[5];
  a[3] = r[3] - r[4], b[3] = r[3] + r[4];
}

LG_HD void left_matrix(const float* a, float* l) {
  l[0] = a[0], l[1] = a[1], l[2] = a[2], l[3] = -a[3];
  l[4] = -a[1], l[5] = a[0], l[6] = a[3], l[7] = a[2];
  l[8] = -a[2], l[9] = -a[3], l[10] = a[0], l[11] = -a[1];
  l[12] = a[3], l[13] = -a[2], l[14] = a[1], l[15] = a[0];
}

LG_HD void right_matrix(const float* b, float* k) {
  k[0] = b[0], k[1] = b[1], k[2] = b[2], k[3] = b[3];
  k[4] = -b[1], k[5] = b[0], k[6] = b[3], k[7] = -b[2];
  k[8] = -b[2], k[9] = -b[3], k[10] = b[0], k[11] = b[1];
  k[12] = -b[3], k[13] = b[2], k[14] = -b[1], k[15] = b[0];
}

// How much a standard deviation in time leaves of the opacity.
LG_HD float time_decay(float later, float plateau, float duration, float& fade) {
  const float outside = fabsf(later) - plateau;
  fade = outside < 0.0f ? 0.0f : outside;  // NaN stays
  const float steps = fade / duration;
  return expf(-0.5f * steps * steps);
}

// An opacity that is seen at all; false for NaN.
LG_HD bool shows(float opacity) { return 255.0f * opacity > 1.0f; }

// Rotor (8), log scales (4), logit; `log_plateau` may be null. What has faded is left half done.
LG_HD TimeSlice slice_gaussian(const float* mean, float time, const float* rotor,
                               const float* log_scale, float logit, const float* log_plateau,
                               const Moment& moment) {
  TimeSlice g;
  float quaternion_a[4], quaternion_b[4], l[16], k[16];
  rotor_quaternions(rotor, quaternion_a, quaternion_b);
  g.inverse_a = unit_quaternion(quaternion_a, g.a);
  g.inverse_b = unit_quaternion(quaternion_b, g.b);
  for (int j = 0; j < 4; ++j) g.scale[j] = expf(log_scale[j]);
  g.plateau = log_plateau ? expf(*log_plateau) : 0.0f;
  g.peak = 1.0f / (1.0f + expf(-logit));
  left_matrix(g.a, l);
  right_matrix(g.b, k);
  // the last row first: it says whether the others are needed
  float largest = 0.0f, square = 0.0f;
  for (int j = 0; j < 4; ++j) {
    float sum = 0.0f;
    for (int n = 0; n < 4; ++n) sum += l[12 + n] * k[4 * n + j];
    g.root[12 + j] = sum * g.scale[j];
    largest = maximum(fabsf(g.root[12 + j]), largest);
  }
  const float shrink = 1.0f / largest;
  for (int j = 0; j < 4; ++j) {
    g.unit[j] = g.root[12 + j] * shrink;
    square += g.unit[j] * g.unit[j];
  }
  const float rest = sqrtf(square);
  for (int j = 0; j < 4; ++j) g.unit[j] /= rest;
  g.length = largest * rest;
  g.duration = maximum(g.length, moment.shortest);
  g.later = moment.time - time;
  g.decay = time_decay(g.later, g.plateau, g.duration, g.fade);
  g.opacity = g.peak * g.decay;
  g.ok = shows(g.opacity) && usable(g.length);
  if (!g.ok) return g;
  for (int i = 0; i < 12; ++i) {
    float sum = 0.0f;
    for (int n = 0; n < 4; ++n) sum += l[i / 4 * 4 + n] * k[4 * n + i % 4];
    g.root[i] = sum * g.scale[i % 4];
  }
  const float sign = g.unit[3] >= 0.0f ? 1.0f : -1.0f, beta = 1.0f / (1.0f + fabsf(g.unit[3]));
  const float speed = g.length / g.duration / g.duration;
  for (int i = 0; i < 3; ++i) {
    const float* n = g.root + 4 * i;
    g.along[i] = n[0] * g.unit[0] + n[1] * g.unit[1] + n[2] * g.unit[2] + n[3] * g.unit[3];
    const float mirrored = (g.along[i] + sign * n[3]) * beta;
    for (int j = 0; j < 3; ++j) g.axes[3 * i + j] = n[j] - mirrored * g.unit[j];
    g.mean[i] = mean[i] + g.along[i] * speed * g.later;
  }
  return g;
}

// ---- prepared: planes of four numbers, see reference/gaussian_slicing.py

constexpr int PLANES = 5;

struct PreparedSlice {
  float mean[3], axes[9], opacity;
};

// plane(k) returns the four numbers of plane k, and is asked for no more than the first for what has
// faded; false then.
template <class Plane>
LG_HD bool prepared_gaussian(float time, Plane plane, PreparedSlice& g) {
  const auto life = plane(0);
  const float later = time - life.x;
  float fade;
  g.opacity = life.w * time_decay(later, life.y, life.z, fade);
  if (!shows(g.opacity)) return false;
  const auto mean = plane(1), velocity = plane(2), middle = plane(3), last = plane(4);
  g.mean[0] = mean.x + velocity.x * later;
  g.mean[1] = mean.y + velocity.y * later;
  g.mean[2] = mean.z + velocity.z * later;
  g.axes[0] = mean.w, g.axes[1] = velocity.w;
  g.axes[2] = middle.x, g.axes[3] = middle.y, g.axes[4] = middle.z, g.axes[5] = middle.w;
  g.axes[6] = last.x, g.axes[7] = last.y, g.axes[8] = last.z;
  return true;
}

struct TimeGradient : AxesGradient {
  float time, rotor[8], scale[4], plateau;
};

LG_HD void rotor_pullback(const TimeSlice& g, const float* d_rotation, float* d_rotor) {
  float l[16], k[16], by_l[16], by_k[16];
  left_matrix(g.a, l);
  right_matrix(g.b, k);
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      float left = 0.0f, right = 0.0f;
      for (int n = 0; n < 4; ++n) {
        left += d_rotation[4 * i + n] * k[4 * j + n];
        right += l[4 * n + i] * d_rotation[4 * n + j];
      }
      by_l[4 * i + j] = left;
      by_k[4 * i + j] = right;
    }
  const float* e = by_l;
  const float d_a[4] = {e[0] + e[5] + e[10] + e[15], e[1] - e[4] - e[11] + e[14],
                        e[2] + e[7] - e[8] - e[13], -e[3] + e[6] - e[9] + e[12]};
  e = by_k;
  const float d_b[4] = {e[0] + e[5] + e[10] + e[15], e[1] - e[4] + e[11] - e[14],
                        e[2] - e[7] - e[8] + e[13], e[3] + e[6] - e[9] - e[12]};
  float a[4], b[4];
  unit_quaternion_pullback(g.a, g.inverse_a, d_a, a);
  unit_quaternion_pullback(g.b, g.inverse_b, d_b, b);
  d_rotor[0] = a[0] + b[0], d_rotor[7] = a[0] - b[0];
  d_rotor[1] = a[1] + b[1], d_rotor[6] = b[1] - a[1];
  d_rotor[2] = a[2] + b[2], d_rotor[5] = a[2] - b[2];
  d_rotor[3] = a[3] + b[3], d_rotor[4] = b[3] - a[3];
}

// From the gradients by mean, axes and opacity to those by the parameters; `out.mean` is that by
// both means.
LG_HD void slice_gradient(const TimeSlice& g, const Moment& moment, TimeGradient& out) {
  const float inverse = 1.0f / g.duration;
  // opacity = peak decay
  const float by_decay = out.opacity * g.peak;
  out.opacity = finite_or_zero(out.opacity * g.decay * g.peak * (1.0f - g.peak));
  const float steps = g.fade * inverse;
  const float by_fade = -by_decay * g.decay * steps * inverse;
  float by_duration = by_decay * g.decay * steps * steps * inverse;
  out.plateau = finite_or_zero(g.fade > 0.0f ? -by_fade * g.plateau : 0.0f);
  float by_later = g.fade > 0.0f ? (g.later > 0.0f ? by_fade : -by_fade) : 0.0f;
  // mean = mu + along speed later, speed = length / duration^2
  const float speed = g.length * inverse * inverse;
  float moved = 0.0f;
  for (int i = 0; i < 3; ++i) moved += out.mean[i] * g.along[i];
  by_later += moved * speed;
  by_duration -= 2.0f * moved * g.later * speed * inverse;
  out.time = finite_or_zero(-by_later);
  const float by_length = moved * g.later * inverse * inverse +
                          (g.length >= moment.shortest ? by_duration : 0.0f);
  // axes, and along
  const float* u = g.unit;
  const float sign = u[3] >= 0.0f ? 1.0f : -1.0f, beta = 1.0f / (1.0f + fabsf(u[3]));
  float d_root[16], d_u[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int i = 0; i < 3; ++i) {
    const float *n = g.root + 4 * i, *e = out.axes + 3 * i;
    const float sum = g.along[i] + sign * n[3];
    const float by_sum = -beta * (e[0] * u[0] + e[1] * u[1] + e[2] * u[2]);
    const float by_along = by_sum + out.mean[i] * g.later * speed;
    for (int j = 0; j < 4; ++j) {
      d_root[4 * i + j] = by_along * u[j] + (j < 3 ? e[j] : sign * by_sum);
      d_u[j] += by_along * n[j] - (j < 3 ? beta * e[j] * sum : sign * beta * by_sum * sum);
    }
  }
  const float outwards = d_u[0] * u[0] + d_u[1] * u[1] + d_u[2] * u[2] + d_u[3] * u[3];
  for (int j = 0; j < 4; ++j)
    d_root[12 + j] = (d_u[j] - u[j] * outwards) / g.length + u[j] * by_length;
  // M = R S
  for (int j = 0; j < 4; ++j) {
    float sum = 0.0f;
    for (int i = 0; i < 4; ++i) {
      sum += g.root[4 * i + j] * d_root[4 * i + j];
      d_root[4 * i + j] *= g.scale[j];
    }
    out.scale[j] = finite_or_zero(sum);
  }
  rotor_pullback(g, d_root, out.rotor);
}

}  // namespace lg
