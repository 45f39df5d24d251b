// Noise on the means of Gaussians, one after another; maths: common/perturb.h. Limited by the five
// exponentials of a Gaussian.
#include "perturb.h"

// means (G, 3) change in place; rotations (G, 4), log_scales (G, 3), logits (G), noise (G, 3).
LG_EXPORT void lg_perturb_means(float* means, const float* rotations, const float* log_scales,
                                const float* logits, const float* noise, int64_t count,
                                float rate) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    float move[3];
    if (!lg::perturbation(rotations + 4 * i, log_scales + 3 * i, logits[i], noise + 3 * i, rate,
                          move))
      continue;
    for (int j = 0; j < 3; ++j) means[3 * i + j] += move[j];
  }
}
