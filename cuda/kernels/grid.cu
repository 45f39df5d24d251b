// Grid encoding on the GPU: values, gradients to the table and to the positions, and the
// derivatives of the position gradient. One kernel a module, chosen by LG_PASS (0 compiles all).
//
// One thread = one point and LG_PER_THREAD consecutive levels (blockIdx.y = group of levels), so
// that rows of features move as whole vectors. Layouts: x (points, D), table (entries, F),
// features (points, L * F) level-major, all contiguous and aligned to 16 bytes.
// Limit: the rate of scattered accesses of 4 to 16 bytes in L1 and L2, for sums that of atomics.
//
// LG_TANGENT 1 puts the rate of the corner weights along `direction` (points, D) in place of the
// weights: the forward pass then gives the derivative of the features along it, and the table pass
// the gradient that the position gradient sends to the table.
#ifndef LG_LEVELS
#define LG_LEVELS 16
#endif
#ifndef LG_PER_THREAD
#define LG_PER_THREAD 4
#endif
#ifndef LG_TANGENT
#define LG_TANGENT 0
#endif
#ifndef LG_PASS
#define LG_PASS 0
#endif
#include "grid_cell.h"

constexpr int BLOCK = 128;
constexpr int GROUPS = LG_LEVELS / LG_PER_THREAD;
constexpr int GROUP_BYTES = LG_PER_THREAD * ENTRY_BYTES;
constexpr int GROUP_WORDS = (GROUP_BYTES + 3) / 4;
static_assert(LG_LEVELS % LG_PER_THREAD == 0, "groups of levels must be whole");

struct Levels {  // by value, so that it lies in the constant bank
  lg::GridLevel level[LG_LEVELS];
};

__device__ inline Point read_direction(const float* direction, const Point& at, int i) {
  Point result = read_point(direction, i);
  LG_UNROLL
  for (int d = 0; d < D; ++d) result.x[d] = is_inside(at.x[d]) ? result.x[d] : 0.0f;
  return result;
}

__device__ inline void write_gradient(float* target, const Point& at, const float (&total)[D],
                                      int i) {
  LG_UNROLL
  for (int d = 0; d < D; ++d) target[(size_t)i * D + d] = is_inside(at.x[d]) ? total[d] : 0.0f;
}

// A group of LG_PER_THREAD levels of one row of features
struct Group {
  uint32_t word[GROUP_WORDS];
};

__device__ inline Group read_group(const void* rows, int i, int group) {
  const size_t at = (size_t)i * GROUPS + group;
  Group result;
  if constexpr (GROUP_BYTES % 4 == 0) {
    read_words<GROUP_WORDS>((const uint32_t*)rows + at * GROUP_WORDS, result.word);
  } else {  // an odd number of single halves
    const uint16_t* source = (const uint16_t*)rows + at * LG_PER_THREAD;
    LG_UNROLL
    for (int k = 0; k < LG_PER_THREAD; ++k)
      result.word[k / 2] = k & 1 ? result.word[k / 2] | (uint32_t)source[k] << 16 : source[k];
  }
  return result;
}

__device__ inline void write_group(void* rows, int i, int group, const Group& from) {
  const size_t at = (size_t)i * GROUPS + group;
  if constexpr (GROUP_BYTES % 4 == 0) {
    write_words<GROUP_WORDS>((uint32_t*)rows + at * GROUP_WORDS, from.word);
  } else {
    uint16_t* target = (uint16_t*)rows + at * LG_PER_THREAD;
    LG_UNROLL
    for (int k = 0; k < LG_PER_THREAD; ++k)
      target[k] = (uint16_t)(from.word[k / 2] >> (16 * (k & 1)));
  }
}

__device__ inline void find_weights(const lg::GridLevel& level, const Cell& cell,
                                    const Point& direction, float (&weight)[CORNERS]) {
#if LG_TANGENT
  float rate[D];
  LG_UNROLL
  for (int d = 0; d < D; ++d) rate[d] = direction.x[d] * cell.slope[d] * level.scale;
  lg::tangent_weights<D>(cell.value, rate, weight);
#else
  lg::corner_weights<D>(cell.value, weight);
#endif
}

#if LG_PASS == 0 || LG_PASS == 1
extern "C" __global__ void __launch_bounds__(BLOCK)
grid_forward(const float* __restrict__ x, const float* __restrict__ direction,
             const uint32_t* __restrict__ table, const __grid_constant__ Levels levels,
             uint32_t* __restrict__ out, int n) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= n) return;
  const Point at = read_point(x, i);
  const Point along = LG_TANGENT ? read_direction(direction, at, i) : at;
  Group row;
  LG_UNROLL
  for (int k = 0; k < LG_PER_THREAD; ++k) {
    const lg::GridLevel& level = levels.level[blockIdx.y * LG_PER_THREAD + k];
    const Cell cell = find_cell(level, at);
    float weight[CORNERS], corner[CORNERS][FEATURES], sum[FEATURES] = {};
    gather_corners(level_table(table, level), cell.index, corner);
    find_weights(level, cell, along, weight);
    LG_UNROLL
    for (int c = 0; c < CORNERS; ++c) {
      LG_UNROLL
      for (int f = 0; f < FEATURES; ++f) sum[f] = fmaf(weight[c], corner[c][f], sum[f]);
    }
    pack_features(sum, k * FEATURES, row.word);
  }
  write_group(out, i, blockIdx.y, row);
}
LG_KERNEL(grid_forward)
#endif

#if LG_PASS == 0 || LG_PASS == 2
extern "C" __global__ void __launch_bounds__(BLOCK)
grid_backward_table(const float* __restrict__ x, const float* __restrict__ direction,
                    const uint32_t* __restrict__ gradient, const __grid_constant__ Levels levels,
                    float* __restrict__ table_gradient, int n) {
  const int place = blockIdx.x * BLOCK + threadIdx.x, lane = threadIdx.x & 31;
  const int i = min(place, n - 1);  // no lane leaves: the warp sums together
  const Point at = read_point(x, i);
  const Point along = LG_TANGENT ? read_direction(direction, at, i) : at;
  const Group row = read_group(gradient, i, blockIdx.y);
  LG_UNROLL
  for (int k = 0; k < LG_PER_THREAD; ++k) {
    const lg::GridLevel& level = levels.level[blockIdx.y * LG_PER_THREAD + k];
    const Cell cell = find_cell(level, at);
    const Lanes run = find_run(cell.lowest, lane);
    float* target = table_gradient + (size_t)level.offset * FEATURES;
    float weight[CORNERS], feature[FEATURES], part[CORNERS][LOT];
    find_weights(level, cell, along, weight);
    unpack_features(row.word, k * FEATURES, feature);
    LG_UNROLL
    for (int first = 0; first < FEATURES; first += LOT) {
      LG_UNROLL
      for (int c = 0; c < CORNERS; ++c) {
        LG_UNROLL
        for (int f = 0; f < LOT; ++f)
          part[c][f] = place < n ? weight[c] * feature[first + f] : 0.0f;
      }
      if (run.merge) sum_run(part, lane, run.end);
      if (!run.first || place >= n) continue;
      LG_UNROLL
      for (int c = 0; c < CORNERS; c += 2)
        add_two(target, first, cell.index[c], part[c], cell.index[c + 1], part[c + 1]);
    }
  }
}
LG_KERNEL(grid_backward_table)
#endif

#if LG_PASS == 0 || LG_PASS == 3 || LG_PASS == 4
// Corner values of one level times the gradient of its features
__device__ inline void corner_products(const lg::GridLevel& level, const uint32_t* table,
                                       const Cell& cell, const Group& row, int k,
                                       float (&product)[CORNERS]) {
  float corner[CORNERS][FEATURES], feature[FEATURES];
  gather_corners(level_table(table, level), cell.index, corner);
  unpack_features(row.word, k * FEATURES, feature);
  LG_UNROLL
  for (int c = 0; c < CORNERS; ++c) {
    product[c] = 0.0f;
    LG_UNROLL
    for (int f = 0; f < FEATURES; ++f)
      product[c] = fmaf(corner[c][f], feature[f], product[c]);
  }
}
#endif

#if LG_PASS == 0 || LG_PASS == 3
// One thread takes all levels of a point, so that no atomics are needed.
extern "C" __global__ void __launch_bounds__(BLOCK)
grid_backward_x(const float* __restrict__ x, const uint32_t* __restrict__ table,
                const uint32_t* __restrict__ gradient, const __grid_constant__ Levels levels,
                float* __restrict__ x_gradient, int n) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= n) return;
  const Point at = read_point(x, i);
  float total[D] = {};
  for (int group = 0; group < GROUPS; ++group) {
    const Group row = read_group(gradient, i, group);
    LG_UNROLL
    for (int k = 0; k < LG_PER_THREAD; ++k) {
      const lg::GridLevel& level = levels.level[group * LG_PER_THREAD + k];
      const Cell cell = find_cell(level, at);
      float product[CORNERS];
      corner_products(level, table, cell, row, k, product);
      lg::add_gradient<D>(product, cell.value, cell.slope, level.scale, total);
    }
  }
  write_gradient(x_gradient, at, total, i);
}
LG_KERNEL(grid_backward_x)
#endif

#if LG_PASS == 0 || LG_PASS == 4
// Hessian of (features . gradient) by the position, times `direction`
extern "C" __global__ void __launch_bounds__(BLOCK)
grid_curvature(const float* __restrict__ x, const float* __restrict__ direction,
               const uint32_t* __restrict__ table, const uint32_t* __restrict__ gradient,
               const __grid_constant__ Levels levels, float* __restrict__ x_gradient, int n) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= n) return;
  const Point at = read_point(x, i);
  const Point along = read_direction(direction, at, i);
  float total[D] = {};
  for (int group = 0; group < GROUPS; ++group) {
    const Group row = read_group(gradient, i, group);
    LG_UNROLL
    for (int k = 0; k < LG_PER_THREAD; ++k) {
      const lg::GridLevel& level = levels.level[group * LG_PER_THREAD + k];
      const Cell cell = find_cell(level, at);
      float product[CORNERS];
      corner_products(level, table, cell, row, k, product);
      lg::add_curvature<D, LG_SMOOTH>(product, cell.value, cell.slope, cell.curvature, along.x,
                                      level.scale, total);
    }
  }
  write_gradient(x_gradient, at, total, i);
}
LG_KERNEL(grid_curvature)
#endif
