// Noise of one Gaussian's mean, as in reference/perturb.py.
#pragma once
#include "gaussian.h"

namespace lg {

constexpr float GATE_STEEPNESS = 100.0f, GATE_OPACITY = 0.005f;

// move = rate gate(opacity) R S S^T R^T noise; false, and no move, where that is not finite.
LG_HD bool perturbation(const float* rotation, const float* log_scale, float logit,
                        const float* noise, float rate, float* move) {
  const GaussianShape g = activate<true>(rotation, log_scale, logit);
  const float gate = 1.0f / (1.0f + expf(GATE_STEEPNESS * (g.opacity - GATE_OPACITY)));
  float r[9], own[3];
  rotation_matrix(g.q, r);
  for (int j = 0; j < 3; ++j) {
    const float along = r[j] * noise[0] + r[3 + j] * noise[1] + r[6 + j] * noise[2];
    own[j] = rate * gate * along * g.scale[j] * g.scale[j];
  }
  bool fine = true;
  for (int i = 0; i < 3; ++i) {
    move[i] = r[3 * i] * own[0] + r[3 * i + 1] * own[1] + r[3 * i + 2] * own[2];
    fine = fine && usable(move[i]);
  }
  return fine;
}

}  // namespace lg
