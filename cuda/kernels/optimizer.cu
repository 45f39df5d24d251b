// Adam and moving averages, in place, one pass over memory. One thread takes LG_VECTOR entries as
// one 16-byte access a tensor (LG_VECTOR 1 where a tensor is not aligned).
// Limited by memory: 28 bytes an entry that moves (30 with the fp16 copy), 4 for one that is
// skipped: groups whose gradients are all zero are left unread when asked.
#include "device.h"

#ifndef LG_VECTOR
#define LG_VECTOR 4
#endif
#ifndef LG_HALF_COPY
#define LG_HALF_COPY 0
#endif

constexpr int VECTOR = LG_VECTOR;
constexpr float LARGEST_GRADIENT = 1e18f;  // its square is still finite

// Mirrors _settings_bytes of cuda/optimizer.py.
struct Settings {
  float step_size;          // learning rate / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)
  float beta1, beta2, eps;
  float weight_decay;
  float inverse_scale;      // of the gradient
  int32_t skip_zero, zero_grad;
};

struct __align__(4 * VECTOR) Entries {
  float value[VECTOR];
};

struct __align__(2 * VECTOR) Halves {
  uint16_t value[VECTOR];
};

__device__ inline bool is_usable(float x) { return fabsf(x) <= LARGEST_GRADIENT; }  // false for NaN

__device__ inline uint16_t saturated_half(float x) {
  return pack_half(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

// One entry; nothing changes when it is skipped.
__device__ inline void move_entry(float gradient, float& param, float& m, float& v,
                                  const Settings& s) {
  const float scaled = is_usable(gradient) ? gradient * s.inverse_scale : 0.0f;
  if (s.skip_zero && scaled == 0.0f) return;
  const float g = scaled + s.weight_decay * param;
  m = s.beta1 * m + (1.0f - s.beta1) * g;
  v = s.beta2 * v + (1.0f - s.beta2) * g * g;
  param -= s.step_size * m / (sqrtf(v * s.second_correction) + s.eps);
}

// Entries past the last whole vector are single: one thread takes them all.
__device__ inline void move_rest(float* param, float* grad, float* exp_avg, float* exp_avg_sq,
                                 uint16_t* half_copy, int* bad_count, int first, int size,
                                 const Settings& s) {
  for (int i = first; i < size; ++i) {
    if (!is_usable(grad[i])) atomicAdd(bad_count, 1);
    move_entry(grad[i], param[i], exp_avg[i], exp_avg_sq[i], s);
    if (s.zero_grad) grad[i] = 0.0f;
    if (LG_HALF_COPY) half_copy[i] = saturated_half(param[i]);
  }
}

extern "C" __global__ void __launch_bounds__(256)
    adam_step(Entries* __restrict__ param, Entries* __restrict__ grad,
              Entries* __restrict__ exp_avg, Entries* __restrict__ exp_avg_sq,
              Halves* __restrict__ half_copy, int* __restrict__ bad_count, int size,
              const __grid_constant__ Settings s) {
  const int i = blockIdx.x * 256 + threadIdx.x, vectors = size / VECTOR;
  if (i == vectors)
    move_rest((float*)param, (float*)grad, (float*)exp_avg, (float*)exp_avg_sq,
              (uint16_t*)half_copy, bad_count, vectors * VECTOR, size, s);
  if (i >= vectors) return;
  const Entries g = grad[i];
  int touched = 0, bad = 0;
#pragma unroll
  for (int k = 0; k < VECTOR; ++k) {
    touched |= g.value[k] != 0.0f;  // NaN differs from 0
    bad += !is_usable(g.value[k]);
  }
  if (s.skip_zero && !touched) return;
  if (bad) atomicAdd(bad_count, bad);
  Entries p = param[i], m = exp_avg[i], v = exp_avg_sq[i];
#pragma unroll
  for (int k = 0; k < VECTOR; ++k)
    move_entry(g.value[k], p.value[k], m.value[k], v.value[k], s);
  param[i] = p;
  exp_avg[i] = m;
  exp_avg_sq[i] = v;
  if (s.zero_grad) grad[i] = Entries{};
  if (LG_HALF_COPY) {
    Halves half;
#pragma unroll
    for (int k = 0; k < VECTOR; ++k) half.value[k] = saturated_half(p.value[k]);
    half_copy[i] = half;
  }
}
LG_KERNEL(adam_step)

extern "C" __global__ void __launch_bounds__(256)
    ema_step(Entries* __restrict__ average, const Entries* __restrict__ param, int size,
             float rate) {
  const int i = blockIdx.x * 256 + threadIdx.x, vectors = size / VECTOR;
  if (i == vectors) {
    float* last_average = (float*)average;
    const float* last_param = (const float*)param;
    for (int j = vectors * VECTOR; j < size; ++j)
      last_average[j] += rate * (last_param[j] - last_average[j]);
  }
  if (i >= vectors) return;
  Entries a = average[i];
  const Entries p = param[i];
#pragma unroll
  for (int k = 0; k < VECTOR; ++k) a.value[k] += rate * (p.value[k] - a.value[k]);
  average[i] = a;
}
LG_KERNEL(ema_step)
