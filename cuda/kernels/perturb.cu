// Noise on the means of Gaussians, in place. One thread = one Gaussian; maths: common/perturb.h.
// Memory: 56 bytes in, 12 out; limited by it.
#include "device.h"
#include "perturb.h"

constexpr int BLOCK = 256;

extern "C" __global__ void __launch_bounds__(BLOCK)
    perturb_means(float* __restrict__ means, const float* __restrict__ rotations,
                  const float* __restrict__ log_scales, const float* __restrict__ logits,
                  const float* __restrict__ noise, int count, float rate) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= count) return;
  const float4 q = ((const float4*)rotations)[i];
  const float rotation[4] = {q.x, q.y, q.z, q.w};
  const size_t at = 3 * (size_t)i;
  float move[3];
  if (!lg::perturbation(rotation, log_scales + at, logits[i], noise + at, rate, move)) return;
  for (int j = 0; j < 3; ++j) means[at + j] += move[j];
}
LG_KERNEL(perturb_means)
