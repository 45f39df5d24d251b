// Adam and moving averages, in place, one pass over memory. One thread takes LG_VECTOR entries as
// one 16-byte access a tensor (LG_VECTOR 1 where a tensor is not aligned).
// Limited by memory: 28 bytes an entry that moves (30 with the fp16 copy), 4 for one that is
// skipped: groups whose gradients are all zero are left unread when asked.
#include "adam.h"
#include "device.h"

#ifndef LG_VECTOR
#define LG_VECTOR 4
#endif
#ifndef LG_HALF_COPY
#define LG_HALF_COPY 0
#endif
#ifndef LG_ROW
#define LG_ROW 1
#endif
#ifndef LG_VISIBLE
#define LG_VISIBLE 0
#endif

constexpr int VECTOR = LG_VECTOR;
constexpr int ROW = LG_ROW;

using Settings = lg::AdamSettings;
using lg::is_usable;

struct __align__(4 * VECTOR) Entries {
  float value[VECTOR];
};

struct __align__(2 * VECTOR) Halves {
  uint16_t value[VECTOR];
};

__device__ inline uint16_t saturated_half(float x) {
  return pack_half(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

__device__ inline void write_entry(float g, float step_size, float& param, float& m, float& v,
                                   const Settings& s) {
  const lg::AdamEntry e = lg::adam(g, {param, m, v}, step_size, s);
  param = e.param;
  m = e.first;
  v = e.second;
}

// One entry; nothing changes when it is skipped.
__device__ inline void move_entry(float gradient, float& param, float& m, float& v,
                                  const Settings& s) {
  const float g = is_usable(gradient) ? gradient * s.inverse_scale : 0.0f;
  if (s.skip_zero && g == 0.0f) return;
  write_entry(g, s.step_size, param, m, v, s);
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

// ---- rows of LG_ROW entries, of which the first `head` move by another rate; the flat tensor is
// taken in vectors, which may hold the end of one row and the beginning of the next.

struct RowStep {
  int head;
  float tail_step;
};

// Entry i of the flat tensor, if its row moves; returns whether its gradient was refused.
__device__ inline int move_in_row(int i, float gradient, float& param, float& m, float& v,
                                  const uint8_t* __restrict__ visible, const RowStep& row,
                                  const Settings& s) {
  const int number = i / ROW;
  if (LG_VISIBLE && !visible[number]) return 0;
  const bool usable = is_usable(gradient);
  const float step_size = i - number * ROW < row.head ? s.step_size : row.tail_step;
  write_entry(usable ? gradient * s.inverse_scale : 0.0f, step_size, param, m, v, s);
  return !usable;
}

// Whether anything of the vector that begins at entry i moves.
__device__ inline bool any_visible(int i, const uint8_t* __restrict__ visible) {
  if (!LG_VISIBLE) return true;
  int any = 0;
#pragma unroll
  for (int row = i / ROW; row <= (i + VECTOR - 1) / ROW; ++row) any |= visible[row];
  return any != 0;
}

extern "C" __global__ void __launch_bounds__(256)
    adam_rows(Entries* __restrict__ param, Entries* __restrict__ grad,
              Entries* __restrict__ exp_avg, Entries* __restrict__ exp_avg_sq,
              const uint8_t* __restrict__ visible, int* __restrict__ bad_count, int size, int head,
              float tail_step, const __grid_constant__ Settings s) {
  const int i = blockIdx.x * 256 + threadIdx.x, vectors = size / VECTOR;
  const RowStep row = {head, tail_step};
  int bad = 0;
  if (i == vectors) {
    float *p = (float*)param, *g = (float*)grad, *m = (float*)exp_avg, *v = (float*)exp_avg_sq;
    for (int j = vectors * VECTOR; j < size; ++j) {
      bad += move_in_row(j, g[j], p[j], m[j], v[j], visible, row, s);
      if (s.zero_grad) g[j] = 0.0f;
    }
  } else if (i < vectors && any_visible(VECTOR * i, visible)) {
    const Entries g = grad[i];
    Entries p = param[i], m = exp_avg[i], v = exp_avg_sq[i];
#pragma unroll
    for (int k = 0; k < VECTOR; ++k)
      bad += move_in_row(VECTOR * i + k, g.value[k], p.value[k], m.value[k], v.value[k], visible,
                         row, s);
    param[i] = p;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
  }
  if (s.zero_grad && i < vectors) grad[i] = Entries{};
  if (bad) atomicAdd(bad_count, bad);
}
LG_KERNEL(adam_rows)

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
