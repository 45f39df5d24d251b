// One Gaussian in space: from its parameters to the mean and axes of splat.h, and the way back.
#pragma once
#include "splat.h"

namespace lg {

// Writes q / |q| and returns 1 / |q|, for any length: its square alone may not fit. Of 0 nothing is
// finite.
LG_HD float unit_quaternion(const float* given, float* q) {
  float largest = 0.0f, square = 0.0f;
  for (int i = 0; i < 4; ++i) largest = maximum(fabsf(given[i]), largest);
  const float shrink = 1.0f / largest;
  for (int i = 0; i < 4; ++i) {
    q[i] = given[i] * shrink;
    square += q[i] * q[i];
  }
  const float rest = 1.0f / sqrtf(square);
  for (int i = 0; i < 4; ++i) q[i] *= rest;
  return shrink * rest;
}

// From the gradient by q / |q| to that by q.
LG_HD void unit_quaternion_pullback(const float* q, float inverse_length, const float* d_unit,
                                    float* d) {
  const float along = d_unit[0] * q[0] + d_unit[1] * q[1] + d_unit[2] * q[2] + d_unit[3] * q[3];
  for (int i = 0; i < 4; ++i) d[i] = finite_or_zero((d_unit[i] - q[i] * along) * inverse_length);
}

struct GaussianShape {
  float q[4], inverse_length;   // unit quaternion w x y z, and what it was divided by
  float scale[3], opacity;      // activated
};

// RAW: log scales and opacity logits
template <bool RAW>
LG_HD GaussianShape activate(const float* rotation, const float* scale, float opacity) {
  GaussianShape g;
  g.inverse_length = unit_quaternion(rotation, g.q);
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

// Columns R_j s_j, row by row.
LG_HD void gaussian_axes(const GaussianShape& g, float* axes) {
  rotation_matrix(g.q, axes);
  for (int i = 0; i < 9; ++i) axes[i] *= g.scale[i % 3];
}

struct GaussianGradient : AxesGradient {
  float q[4], scale[3];
};

// From the gradients by axes and opacity to those by the parameters.
template <bool RAW>
LG_HD void gaussian_gradient(const GaussianShape& g, GaussianGradient& out) {
  if (RAW) out.opacity = finite_or_zero(out.opacity * g.opacity * (1.0f - g.opacity));
  float rotation[9], e[9];
  rotation_matrix(g.q, rotation);
  for (int j = 0; j < 3; ++j) {
    float sum = 0.0f;
    for (int i = 0; i < 3; ++i) {
      sum += out.axes[3 * i + j] * rotation[3 * i + j];
      e[3 * i + j] = out.axes[3 * i + j] * g.scale[j];
    }
    out.scale[j] = finite_or_zero(RAW ? sum * g.scale[j] : sum);
  }
  const float qw = g.q[0], x = g.q[1], y = g.q[2], z = g.q[3];
  float dq[4];
  dq[0] = 2.0f * (z * (e[3] - e[1]) + y * (e[2] - e[6]) + x * (e[7] - e[5]));
  dq[1] = 2.0f * (y * (e[1] + e[3]) + z * (e[2] + e[6]) + qw * (e[7] - e[5])) -
          4.0f * x * (e[4] + e[8]);
  dq[2] = 2.0f * (x * (e[1] + e[3]) + qw * (e[2] - e[6]) + z * (e[5] + e[7])) -
          4.0f * y * (e[0] + e[8]);
  dq[3] = 2.0f * (qw * (e[3] - e[1]) + x * (e[2] + e[6]) + y * (e[5] + e[7])) -
          4.0f * z * (e[0] + e[4]);
  unit_quaternion_pullback(g.q, g.inverse_length, dq, out.q);
}

}  // namespace lg
