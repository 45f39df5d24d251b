// What blending backward adds up for a splat, and what becomes of it.
#pragma once
#include "device.h"

// Sums over pixels, three float4: red green blue S | Sx Sy Sxx Sxy | Syy depth |x| |y| with
// S = sum of dL/dsigma, Sx that times dx and so on; the last two are absolute screen gradients.
constexpr int MOMENTS = 12;
constexpr int NO_SCREEN = 0, PLAIN_SCREEN = 1, ABSOLUTE_SCREEN = 2;

// In place to the gradient by the splat's row: x y a b | c opacity red green | blue depth 0 0.
__device__ inline void finish_moments(const float* row, float4 (&m)[3]) {
  const float a = row[2], b = row[3], c = row[4];
  const float4 m0 = m[0], m1 = m[1], m2 = m[2];
  m[0] = make_float4(a * m1.x + b * m1.y, b * m1.x + c * m1.y, 0.5f * m1.z, m1.w);
  m[1] = make_float4(0.5f * m2.x, -m0.w / row[5], m0.x, m0.y);
  m[2] = make_float4(m0.z, m2.y, 0.0f, 0.0f);
}
