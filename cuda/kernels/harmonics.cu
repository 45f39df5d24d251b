// Spherical harmonics of directions (points, 3): values (points, LG_DEGREES^2), row-major, and the
// gradient to the directions. One thread = one direction. Limit: memory, 12 + 4 LG_DEGREES^2 bytes
// a direction; rows go through shared memory so that the warp's accesses are contiguous.
#ifndef LG_DEGREES
#define LG_DEGREES 4
#endif
#include "device.h"
#include "harmonics.h"

constexpr int BLOCK = 128;
constexpr int WIDTH = LG_DEGREES * LG_DEGREES;
constexpr int PITCH = WIDTH | 1;  // odd: rows of neighbouring threads fall into different banks

extern "C" __global__ void __launch_bounds__(BLOCK)
harmonics_forward(const float* __restrict__ direction, float* __restrict__ value, int points) {
  __shared__ float rows[BLOCK * PITCH];
  const int first = blockIdx.x * BLOCK, i = first + threadIdx.x;
  if (i < points) {
    const float* at = direction + 3 * (size_t)i;
    lg::harmonics<LG_DEGREES>(at[0], at[1], at[2], rows + threadIdx.x * PITCH);
  }
  __syncthreads();
  const int total = min(BLOCK, points - first) * WIDTH;
  for (int k = threadIdx.x; k < total; k += BLOCK)
    value[(size_t)first * WIDTH + k] = rows[k / WIDTH * PITCH + k % WIDTH];
}
LG_KERNEL(harmonics_forward)

extern "C" __global__ void __launch_bounds__(BLOCK)
harmonics_backward(const float* __restrict__ direction, const float* __restrict__ gradient,
                   float* __restrict__ result, int points) {
  __shared__ float rows[BLOCK * PITCH];
  const int first = blockIdx.x * BLOCK, i = first + threadIdx.x;
  const int total = min(BLOCK, points - first) * WIDTH;
  for (int k = threadIdx.x; k < total; k += BLOCK)
    rows[k / WIDTH * PITCH + k % WIDTH] = gradient[(size_t)first * WIDTH + k];
  __syncthreads();
  if (i >= points) return;
  const float* at = direction + 3 * (size_t)i;
  float dx, dy, dz;
  lg::harmonics_gradient<LG_DEGREES>(at[0], at[1], at[2], rows + threadIdx.x * PITCH, dx, dy, dz);
  result[3 * (size_t)i] = dx;
  result[3 * (size_t)i + 1] = dy;
  result[3 * (size_t)i + 2] = dz;
}
LG_KERNEL(harmonics_backward)
