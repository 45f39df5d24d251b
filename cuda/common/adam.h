// Adam of one entry, as in reference/optimizer.py.
#pragma once
#include "scalar.h"

namespace lg {

constexpr float LARGEST_GRADIENT = 1e18f;  // its square is still finite

// Mirrors settings_bytes of cuda/optimizer.py.
struct AdamSettings {
  float step_size;          // learning rate / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)
  float beta1, beta2, eps;
  float weight_decay;
  float inverse_scale;      // of the gradient
  int32_t skip_zero, zero_grad;
};

LG_HD bool is_usable(float g) { return fabsf(g) <= LARGEST_GRADIENT; }  // false for NaN

struct AdamEntry {
  float param, first, second;
};

// g: gradient, usable and divided by its scale. Plain arithmetic: loops over it become vector code.
LG_HD AdamEntry adam(float g, const AdamEntry& old, float step_size, const AdamSettings& s) {
  AdamEntry e;
  g += s.weight_decay * old.param;
  e.first = s.beta1 * old.first + (1.0f - s.beta1) * g;
  e.second = s.beta2 * old.second + (1.0f - s.beta2) * g * g;
  e.param = old.param - step_size * e.first / (sqrtf(e.second * s.second_correction) + s.eps);
  return e;
}

}  // namespace lg
