// The grid's part of signed distances: rows of inputs with their rates by the position, and the
// gradient of the table. LG_PASS: 1 encode, 2 table (0 compiles both).
//
// One thread = one point and eight columns of a row, 16 bytes (blockIdx.y = group of columns): the
// corners of a cell are read once for the value and all rates, in fp32, and both orders of the
// table's gradient are added by the same atomics. Layouts: surface_rows.h; x (points, 3), table
// (entries, F) aligned to 16 bytes. Limit: scattered accesses in L1 and L2, for the table atomics.
#ifndef LG_PASS
#define LG_PASS 0
#endif
#ifndef LG_SECOND  // the loss depends on the gradient of the distance
#define LG_SECOND 1
#endif
#include "grid_cell.h"
#include "surface_rows.h"

constexpr int BLOCK = 128;
constexpr int COLUMNS = 8;
constexpr int SLOTS = COLUMNS / FEATURES;  // levels of a thread
constexpr int GROUPS = ROW / COLUMNS;

struct Levels {  // by value, so that it lies in the constant bank
  lg::GridLevel level[LG_LEVELS];
};

__device__ inline float share_of(float active, int level) {
  return __saturatef(active - (float)level);
}

__device__ inline void unpack(const uint4& words, float (&column)[COLUMNS]) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
  LG_UNROLL
  for (int k = 0; k < 4; ++k) {
    const float2 two = unpack_half2(word[k]);
    column[2 * k] = two.x;
    column[2 * k + 1] = two.y;
  }
}

__device__ inline uint4 pack(const float (&column)[COLUMNS]) {
  return make_uint4(
      pack_finite_half2(column[0], column[1]), pack_finite_half2(column[2], column[3]),
      pack_finite_half2(column[4], column[5]), pack_finite_half2(column[6], column[7]));
}

#if LG_PASS == 0 || LG_PASS == 1
struct Columns {
  float kind[KINDS][COLUMNS];
};

// Value and rates of the features of one level, at place `first`
__device__ inline void encode_level(const lg::GridLevel& level, const uint32_t* table,
                                    const Point& at, float share, int first, Columns& columns) {
  const Cell cell = find_cell(level, at);
  float corner[CORNERS][FEATURES];
  gather_corners(level_table(table, level), cell.index, corner);
  float rate[D];
  LG_UNROLL
  for (int d = 0; d < D; ++d)
    rate[d] = is_inside(at.x[d]) ? share * level.scale * cell.slope[d] : 0.0f;
  LG_UNROLL
  for (int f = 0; f < FEATURES; ++f) {
    float one[CORNERS];
    LG_UNROLL
    for (int c = 0; c < CORNERS; ++c) one[c] = corner[c][f];
    columns.kind[0][first + f] = share * lg::fold_corners<D>(one, cell.value, rate, 0);
    LG_UNROLL
    for (int d = 0; d < KINDS - 1; ++d)
      columns.kind[1 + d][first + f] = lg::fold_corners<D>(one, cell.value, rate, 1 << d);
  }
}

// Positions, centred, and their rates stand behind the features.
__device__ inline void place_position(const Point& at, int column, int place, Columns& columns) {
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    if (column != ENCODED + d) continue;
    columns.kind[0][place] = lg::clamp_unit(at.x[d]) - 0.5f;
    if (LG_RATES) columns.kind[LG_RATES ? 1 + d : 0][place] = is_inside(at.x[d]) ? 1.0f : 0.0f;
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
surface_encode(const float* __restrict__ x, const uint32_t* __restrict__ table,
               const __grid_constant__ Levels levels, uint4* __restrict__ inputs, float active,
               int n) {
  const int i = blockIdx.x * BLOCK + threadIdx.x, group = blockIdx.y;
  if (i >= n) return;
  const Point at = read_point(x, i);
  Columns columns;
  LG_UNROLL
  for (int k = 0; k < KINDS; ++k) {
    LG_UNROLL
    for (int c = 0; c < COLUMNS; ++c) columns.kind[k][c] = 0.0f;
  }
  LG_UNROLL
  for (int k = 0; k < SLOTS; ++k) {
    const int l = group * SLOTS + k;
    const float share = share_of(active, l);
    if (l < LG_LEVELS) {
      if (share > 0.0f)
        encode_level(levels.level[l], table, at, share, k * FEATURES, columns);
    } else {
      LG_UNROLL
      for (int f = 0; f < FEATURES; ++f)
        place_position(at, l * FEATURES + f, k * FEATURES + f, columns);
    }
  }
  LG_UNROLL
  for (int k = 0; k < KINDS; ++k)
    inputs[((size_t)i * KINDS + k) * GROUPS + group] = pack(columns.kind[k]);
}
LG_KERNEL(surface_encode)
#endif

#if LG_PASS == 0 || LG_PASS == 2
// `along`: gradient of the loss by the gradient of the distance (points, 3), read if LG_SECOND.
// Adds to table_gradient, fp32.
extern "C" __global__ void __launch_bounds__(BLOCK)
surface_table(const float* __restrict__ x, const float* __restrict__ along,
              const uint4* __restrict__ slopes, const __grid_constant__ Levels levels,
              float* __restrict__ table_gradient, const float* __restrict__ largest, float active,
              int n) {
  const int place = blockIdx.x * BLOCK + threadIdx.x, lane = threadIdx.x & 31;
  const int i = min(place, n - 1), group = blockIdx.y;  // no lane leaves: the warp sums together
  const Point at = read_point(x, i);
  const Point direction = LG_SECOND ? read_point(along, i) : at;
  const float inverse_scale = 1.0f / scale_for(*largest);
  float first[COLUMNS], second[COLUMNS];
  unpack(slopes[(size_t)i * 2 * GROUPS + group], first);
  if (LG_SECOND) unpack(slopes[((size_t)i * 2 + 1) * GROUPS + group], second);
  LG_UNROLL
  for (int k = 0; k < SLOTS; ++k) {
    const int l = group * SLOTS + k;
    const float share = share_of(active, l);
    if (l >= LG_LEVELS || share <= 0.0f) continue;  // the same for the whole block
    const lg::GridLevel& level = levels.level[l];
    const Cell cell = find_cell(level, at);
    const Lanes run = find_run(cell.lowest, lane);
    float weight[CORNERS], tilt[CORNERS], rate[D];
    lg::corner_weights<D>(cell.value, weight);
    LG_UNROLL
    for (int d = 0; d < D; ++d)
      rate[d] = is_inside(at.x[d]) ? share * direction.x[d] * cell.slope[d] * level.scale : 0.0f;
    if (LG_SECOND) lg::tangent_weights<D>(cell.value, rate, tilt);
    float* target = table_gradient + (size_t)level.offset * FEATURES;
    LG_UNROLL
    for (int lot = 0; lot < FEATURES; lot += LOT) {
      float part[CORNERS][LOT];
      LG_UNROLL
      for (int c = 0; c < CORNERS; ++c) {
        LG_UNROLL
        for (int f = 0; f < LOT; ++f) {
          const int column = k * FEATURES + lot + f;
          float sum = share * inverse_scale * weight[c] * first[column];
          if (LG_SECOND) sum = fmaf(tilt[c], second[column], sum);
          part[c][f] = place < n ? sum : 0.0f;
        }
      }
      if (run.merge) sum_run(part, lane, run.end);
      if (!run.first || place >= n) continue;
      LG_UNROLL
      for (int c = 0; c < CORNERS; c += 2)
        add_two(target, lot, cell.index[c], part[c], cell.index[c + 1], part[c + 1]);
    }
  }
}
LG_KERNEL(surface_table)
#endif
