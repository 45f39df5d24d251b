// What both image_loss implementations compute at one pixel and channel.
//
// With b = p - t, SSIM is u v, u = 1 - m_b^2 / B1, v = 1 - s_b^2 / B2, where
// B1 = m_p^2 + m_t^2 + C1 and B2 = s_p^2 + s_t^2 + C2: the same number as in the twin, without its
// cancellation where pictures are alike. Four windows do: of t, b, b^2 and p^2 + t^2.
//
// The gradient at pixel i needs three maps, summed under the window around i:
// d SSIM / d p_i = 2 (sum M0 + b_i sum M1 + p_i sum M2).
#pragma once
#include "scalar.h"

namespace lg {

constexpr int CHANNELS = 3;
constexpr int REACH = 5, TAPS = 2 * REACH + 1;  // window, pixels
constexpr int SIDE = REACH * CHANNELS;          // its reach along a row, in numbers
constexpr float SSIM_C1 = 1e-4f, SSIM_C2 = 9e-4f;

// Weight k of the window along one axis: exp(-(k - 5)^2 / (2 1.5^2)) over their sum.
LG_HD constexpr float tap(int k) {
  return k == 5             ? 0.26601171493530273f
         : k == 4 || k == 6 ? 0.21300554275512695f
         : k == 3 || k == 7 ? 0.10936068743467331f
         : k == 2 || k == 8 ? 0.03600077331066132f
         : k == 1 || k == 9 ? 0.007598758675158024f
                            : 0.0010283801239356399f;
}

struct Similarity {
  float value;
  float maps[3];
};

// t, b, bb, squares: windows of t, b, b^2, p^2 + t^2.
LG_HD Similarity similarity(float t, float b, float bb, float squares) {
  const float p = t + b, means = p * p + t * t;
  const float spread = maximum(bb - b * b, 0.0f);
  // s_p^2 + s_t^2 >= s_b^2 / 2 but for rounding: keeps the result in [-1, 1]
  const float both = maximum(squares - means, 0.5f * spread);
  const float inverse1 = 1.0f / (means + SSIM_C1), inverse2 = 1.0f / (both + SSIM_C2);
  const float lost1 = b * b * inverse1, lost2 = spread * inverse2;
  const float u = 1.0f - lost1, v = 1.0f - lost2;
  Similarity s;
  s.value = u * v;
  s.maps[0] = v * (lost1 * p - b) * inverse1 + u * (b - lost2 * p) * inverse2;
  s.maps[1] = -u * inverse2;
  s.maps[2] = u * lost2 * inverse2;
  return s;
}

// Gradient of |b|: 0 at 0 and for NaN, as in the twin.
LG_HD float sign(float b) { return b > 0.0f ? 1.0f : b < 0.0f ? -1.0f : 0.0f; }

// From sums over the picture of w |b|, w b^2, w SSIM and w (each pixel once) to l1, ssim and
// squared error in `values`, and the loss.
template <typename Real>
LG_HD float finish_loss(const Real* sums, float ssim_weight, int64_t pixels, float* values) {
  const Real total = sums[3] * CHANNELS, count = (Real)(pixels > 0 ? pixels : 1) * CHANNELS;
  const bool empty = !(total > 0);
  const float nan = float_from_bits(0x7fc00000u);
  values[0] = empty ? 0.0f : (float)(sums[0] / total);
  values[1] = ssim_weight == 0.0f ? nan : empty ? 1.0f : (float)(sums[2] / total);
  values[2] = empty ? 0.0f : (float)(sums[1] / total);
  const Real lost = ssim_weight == 0.0f ? 0 : total - sums[2];
  return (float)(((1 - ssim_weight) * sums[0] + ssim_weight * lost) / count);
}

}  // namespace lg
