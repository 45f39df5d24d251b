// What stands between the networks and compositing in the fused volume passes.
//
//   volume_inputs     geometry (samples, 16) halves -> color network's input (samples, 32) halves:
//                     geometry, then 16 harmonics of the ray's direction; and the density
//   volume_loss       pixels and targets -> loss, gradient by the pixels, gradient by the gain
//   volume_geometry   gradients by the color network's input and by the density -> by the geometry
//
// One thread = one sample or one ray. Limit: memory (about 100 bytes a sample).
#include "harmonics.h"
#include "matrix.h"

constexpr int BLOCK = 256;
constexpr float MAX_LOG_DENSITY = 15.0f;

struct Row16 { uint4 low, high; };  // sixteen halves

extern "C" __global__ void __launch_bounds__(BLOCK)
volume_inputs(const Row16* __restrict__ geometry, const int32_t* __restrict__ ray_indices,
              const float* __restrict__ directions, Row16* __restrict__ inputs,
              float* __restrict__ density, int samples) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= samples) return;
  const Row16 row = geometry[i];
  const int ray = ray_indices[i];
  float value[16] = {};
  if (ray >= 0) {  // padding belongs to no ray
    const float* d = directions + 3 * (size_t)ray;
    lg::harmonics<4>(d[0], d[1], d[2], value);
  }
  uint32_t word[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) word[k] = pack_half2(value[2 * k], value[2 * k + 1]);
  Row16 harmonics;
  harmonics.low = make_uint4(word[0], word[1], word[2], word[3]);
  harmonics.high = make_uint4(word[4], word[5], word[6], word[7]);
  inputs[2 * (size_t)i] = row;
  inputs[2 * (size_t)i + 1] = harmonics;
  density[i] = __expf(fminf(unpack_half2(row.low.x).x, MAX_LOG_DENSITY));
}
LG_KERNEL(volume_inputs)

extern "C" __global__ void __launch_bounds__(BLOCK)
volume_geometry(const Row16* __restrict__ input_gradient, const Row16* __restrict__ geometry,
                const float* __restrict__ density, const float* __restrict__ density_gradient,
                Row16* __restrict__ geometry_gradient, int samples) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= samples) return;
  Row16 row = input_gradient[2 * (size_t)i];
  const float log_density = unpack_half2(geometry[i].low.x).x;
  const float2 first = unpack_half2(row.low.x);
  const float added = log_density < MAX_LOG_DENSITY ? density[i] * density_gradient[i] : 0.0f;
  row.low.x = pack_finite_half2(first.x + added, first.y);
  geometry_gradient[i] = row;
}
LG_KERNEL(volume_geometry)

enum { HAS_WEIGHT = 1, HAS_GAIN = 2 };

// color, target, gain and their gradients (rays, 3); weight (rays). Means are over the rays that had
// room: the first counter[2]; the others get no gradient. totals[0] receives the loss, totals[1]
// the mean squared error without weights; gradients are multiplied by `scale`.
extern "C" __global__ void __launch_bounds__(BLOCK)
volume_loss(const float* __restrict__ color, const float* __restrict__ target,
            const float* __restrict__ weight, const float* __restrict__ gain,
            float* __restrict__ color_gradient, float* __restrict__ gain_gradient,
            float* __restrict__ totals, const int32_t* __restrict__ counter, int rays, int options,
            float huber_delta, float scale) {
  const int i = blockIdx.x * BLOCK + threadIdx.x, fitted = counter[2];
  const float mean = fitted > 0 ? 1.0f / (3.0f * (float)fitted) : 0.0f;
  float sum = 0.0f, squares = 0.0f;
  if (i >= fitted && i < rays) {
    for (int k = 0; k < 3; ++k) color_gradient[3 * (size_t)i + k] = 0.0f;
    for (int k = 0; k < 3 && options & HAS_GAIN; ++k) gain_gradient[3 * (size_t)i + k] = 0.0f;
  }
  if (i < fitted) {
    const float factor = options & HAS_WEIGHT ? weight[i] : 1.0f;
    for (int k = 0; k < 3; ++k) {
      const size_t place = 3 * (size_t)i + k;
      const float pixel = color[place], each = options & HAS_GAIN ? gain[place] : 1.0f;
      const float error = each * pixel - target[place], size = fabsf(error);
      float value = error * error, slope = 2.0f * error;
      if (huber_delta > 0.0f) {
        const bool inside = size <= huber_delta;
        value = inside ? 0.5f * error * error / huber_delta : size - 0.5f * huber_delta;
        slope = inside ? error / huber_delta : (error > 0.0f ? 1.0f : -1.0f);
      }
      slope *= factor * mean * scale;
      sum += factor * mean * value;
      squares += mean * error * error;
      color_gradient[place] = each * slope;
      if (options & HAS_GAIN) gain_gradient[place] = pixel * slope;
    }
  }
#pragma unroll
  for (int lanes = 16; lanes; lanes /= 2) {
    sum += __shfl_xor_sync(~0u, sum, lanes);
    squares += __shfl_xor_sync(~0u, squares, lanes);
  }
  if ((threadIdx.x & 31) == 0) {
    atomicAdd(totals, sum);
    atomicAdd(totals + 1, squares);
  }
}
LG_KERNEL(volume_loss)
