// Cells of a grid on the GPU: where a point lies in one level, and sums over the lanes of a warp that
// share a cell. Sizes as in grid_entry.h, and LG_DIMENSIONS, LG_SMOOTH.
#pragma once
#ifndef LG_DIMENSIONS
#define LG_DIMENSIONS 3
#endif
#ifndef LG_SMOOTH
#define LG_SMOOTH 0
#endif
#include "grid_entry.h"

constexpr int D = LG_DIMENSIONS;
constexpr int CORNERS = 1 << D;

struct Point {
  float x[D];
};

__device__ inline Point read_point(const float* x, int i) {
  Point point;
  LG_UNROLL
  for (int d = 0; d < D; ++d) point.x[d] = x[(size_t)i * D + d];
  return point;
}

// Positions outside the unit cube are clamped to it: no derivative reaches them.
__device__ inline bool is_inside(float x) { return x >= 0.0f && x <= 1.0f; }

// The cell of a point in one level, with the entries and the weights of its corners
struct Cell {
  uint32_t lowest[D];
  uint32_t index[CORNERS];
  float value[D], slope[D], curvature[D];
};

__device__ inline Cell find_cell(const lg::GridLevel& level, const Point& at) {
  Cell cell;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    float fraction;
    lg::locate(level, at.x[d], cell.lowest[d], fraction);
    lg::ease<LG_SMOOTH>(fraction, cell.value[d], cell.slope[d], cell.curvature[d]);
  }
  const bool dense = lg::is_dense<D>(level);
  uint32_t factor[D];
  lg::index_factors<D>(level, dense, factor);
  LG_UNROLL
  for (int c = 0; c < CORNERS; ++c)
    cell.index[c] = lg::corner_index<D>(cell.lowest, factor, c, dense, level.size - 1);
  return cell;
}

__device__ inline const uint32_t* level_table(const uint32_t* table, const lg::GridLevel& level) {
  return (const uint32_t*)((const char*)table + (size_t)level.offset * ENTRY_BYTES);
}

// Neighbouring lanes are neighbours along a ray, and share a cell on coarse levels. Their sums are
// formed in the warp first, over runs of equal cells cut at every eighth lane (three steps), where
// that saves more atomics than it costs.
constexpr int RUN = 8;
constexpr int MOST_RUNS = 20;

struct Lanes {
  bool merge;  // of the whole warp
  bool first;  // this lane adds for its run
  int end;     // lane after the last of its run
};

__device__ inline Lanes find_run(const uint32_t (&lowest)[D], int lane) {
  bool start = lane % RUN == 0;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    const uint32_t before = __shfl_up_sync(~0u, lowest[d], 1);
    start = start || before != lowest[d];
  }
  const uint32_t starts = __ballot_sync(~0u, start);
  const uint32_t later = starts & ~((2u << lane) - 1);
  const bool merge = __popc(starts) <= MOST_RUNS;
  return {merge, start || !merge, later ? __ffs(later) - 1 : 32};
}

__device__ inline void sum_run(float (&part)[CORNERS][LOT], int lane, int end) {
  LG_UNROLL
  for (int step = 1; step < RUN; step *= 2) {
    const float keep = lane + step < end ? 1.0f : 0.0f;
    LG_UNROLL
    for (int c = 0; c < CORNERS; ++c) {
      LG_UNROLL
      for (int f = 0; f < LOT; ++f)
        part[c][f] = fmaf(keep, __shfl_down_sync(~0u, part[c][f], step), part[c][f]);
    }
  }
}
