// One level of a grid for 64 points at once, with all derivatives that a surface needs: corners are
// copied out of the table first, then every sum runs over neighbouring points.
#pragma once
#include "grid_block.h"

namespace lg {

constexpr int POINTS = GRID_BLOCK;

// A value for each of 64 points
typedef float Row[POINTS];

// Where the points lie in one level
struct SurfaceCell {
  GridBlock<3> grid;
  Row rate[3];  // of the weight of the upper vertex by the position; 0 where that is clamped
  Row bend[3];  // its second derivative
};

// `x` (POINTS, 3); `inside` 1 where a coordinate lies in the cube, else 0
inline void find_cells(const float* x, const Row (&inside)[3], const GridLevel& level, bool smooth,
                       SurfaceCell& cell) {
  locate_block<3>(x, level, smooth, POINTS, cell.grid);
  for (int d = 0; d < 3; ++d) {
#pragma omp simd
    for (int j = 0; j < POINTS; ++j) {
      const float gain = level.scale * inside[d][j];
      cell.rate[d][j] = smooth ? gain * cell.grid.slope[d][j] : gain;
      cell.bend[d][j] = smooth ? gain * level.scale * cell.grid.curvature[d][j] : 0.0f;
    }
  }
}

// corner[f][c][j] = feature f of corner c of point j. `table` starts at the level.
template <int F>
inline void copy_corners(const float* table, const SurfaceCell& cell, Row (*corner)[8]) {
  typedef typename GridEntry<F>::type Entry;
  prefetch_block<3, F, false>(table, POINTS, cell.grid);
  for (int c = 0; c < 8; ++c)
    for (int j = 0; j < POINTS; ++j) {
      const Entry entry = *(const Entry*)(table + F * (size_t)cell.grid.index[c][j]);
      LG_UNROLL
      for (int f = 0; f < F; ++f) corner[f][c][j] = entry[f];
    }
}

// Interpolated value of one feature, times `share`
inline void interpolate(const Row (&corner)[8], const SurfaceCell& cell, float share, Row& value) {
  const Row(&weight)[3] = cell.grid.value;
#pragma omp simd
  for (int j = 0; j < POINTS; ++j) {
    float x[4], y[2];
    LG_UNROLL
    for (int e = 0; e < 4; ++e)
      x[e] = corner[2 * e][j] + weight[0][j] * (corner[2 * e + 1][j] - corner[2 * e][j]);
    LG_UNROLL
    for (int e = 0; e < 2; ++e) y[e] = x[2 * e] + weight[1][j] * (x[2 * e + 1] - x[2 * e]);
    value[j] = share * (y[0] + weight[2][j] * (y[1] - y[0]));
  }
}

// The same with the derivatives by the position
inline void interpolate(const Row (&corner)[8], const SurfaceCell& cell, float share, Row& value,
                        Row& by_x, Row& by_y, Row& by_z) {
  const Row(&weight)[3] = cell.grid.value;
#pragma omp simd
  for (int j = 0; j < POINTS; ++j) {
    float x[4], across[4], y[2], y_across[2], up[2];
    LG_UNROLL
    for (int e = 0; e < 4; ++e) {
      across[e] = corner[2 * e + 1][j] - corner[2 * e][j];
      x[e] = corner[2 * e][j] + weight[0][j] * across[e];
    }
    LG_UNROLL
    for (int e = 0; e < 2; ++e) {
      up[e] = x[2 * e + 1] - x[2 * e];
      y[e] = x[2 * e] + weight[1][j] * up[e];
      y_across[e] = across[2 * e] + weight[1][j] * (across[2 * e + 1] - across[2 * e]);
    }
    const float last = weight[2][j], deep = y[1] - y[0];
    value[j] = share * (y[0] + last * deep);
    by_x[j] = share * cell.rate[0][j] * (y_across[0] + last * (y_across[1] - y_across[0]));
    by_y[j] = share * cell.rate[1][j] * (up[0] + last * (up[1] - up[0]));
    by_z[j] = share * cell.rate[2][j] * deep;
  }
}

// Adds share * (Hessian of the level's features . gradient) * direction. `gradient` (F rows).
template <int F>
inline void add_hessian(const Row (*corner)[8], const SurfaceCell& cell, const Row* gradient,
                        const Row* direction, float share, Row* total) {
  Row product[8];
  for (int c = 0; c < 8; ++c) {
#pragma omp simd
    for (int j = 0; j < POINTS; ++j) {
      float sum = 0.0f;
      LG_UNROLL
      for (int f = 0; f < F; ++f) sum += corner[f][c][j] * gradient[f][j];
      product[c][j] = share * sum;
    }
  }
  const Row(&weight)[3] = cell.grid.value;
#pragma omp simd
  for (int j = 0; j < POINTS; ++j) {
    float x[4], across[4], up[2], y_across[2], corner_xy[2], y[2];
    LG_UNROLL
    for (int e = 0; e < 4; ++e) {
      across[e] = product[2 * e + 1][j] - product[2 * e][j];
      x[e] = product[2 * e][j] + weight[0][j] * across[e];
    }
    LG_UNROLL
    for (int e = 0; e < 2; ++e) {
      corner_xy[e] = across[2 * e + 1] - across[2 * e];
      y_across[e] = across[2 * e] + weight[1][j] * corner_xy[e];
      up[e] = x[2 * e + 1] - x[2 * e];
      y[e] = x[2 * e] + weight[1][j] * up[e];
    }
    const float last = weight[2][j];
    const float a = cell.rate[0][j], b = cell.rate[1][j], c = cell.rate[2][j];
    const float xy = a * b * (corner_xy[0] + last * (corner_xy[1] - corner_xy[0]));
    const float xz = a * c * (y_across[1] - y_across[0]);
    const float yz = b * c * (up[1] - up[0]);
    const float xx = cell.bend[0][j] * (y_across[0] + last * (y_across[1] - y_across[0]));
    const float yy = cell.bend[1][j] * (up[0] + last * (up[1] - up[0]));
    const float zz = cell.bend[2][j] * (y[1] - y[0]);
    const float u = direction[0][j], v = direction[1][j], w = direction[2][j];
    total[0][j] += xx * u + xy * v + xz * w;
    total[1][j] += xy * u + yy * v + yz * w;
    total[2][j] += xz * u + yz * v + zz * w;
  }
}

// Adds weight * first + (rate of the weight along `direction`) * second to the corners' entries.
// A row of `gradient` holds both, F numbers each. `table` starts at the level.
template <int F>
inline void scatter_both(const float* gradient, int n, SurfaceCell& cell, const Row* direction,
                         float* table) {
  typedef typename GridEntry<F>::type Entry;
  Row rate[8];
  const Row(&value)[3] = cell.grid.value;
  for (int c = 0; c < 8; ++c) {
#pragma omp simd
    for (int j = 0; j < POINTS; ++j) {
      float weight[3], along[3];
      LG_UNROLL
      for (int d = 0; d < 3; ++d) {
        weight[d] = c >> d & 1 ? value[d][j] : 1.0f - value[d][j];
        along[d] = (c >> d & 1 ? 1.0f : -1.0f) * cell.rate[d][j] * direction[d][j];
      }
      const float first = weight[0] * weight[1];
      cell.grid.weight[c][j] = first * weight[2];
      rate[c][j] = (along[0] * weight[1] + weight[0] * along[1]) * weight[2] + first * along[2];
    }
  }
  prefetch_block<3, F, true>(table, n, cell.grid);
  for (int j = 0; j < n; ++j) {
    const Entry first = *(const Entry*)(gradient + 2 * F * j);
    const Entry second = *(const Entry*)(gradient + 2 * F * j + F);
    LG_UNROLL
    for (int c = 0; c < 8; ++c)
      *(Entry*)(table + F * (size_t)cell.grid.index[c][j]) +=
          cell.grid.weight[c][j] * first + rate[c][j] * second;
  }
}

}  // namespace lg
