// Grid levels on the CPU, in blocks of points: cells and weights first (vectorised over the
// points), then prefetched accesses to the table. Used by grid.cpp and by fused training steps.
//
// Lifetime of a block, for one level and up to GRID_BLOCK points:
//   locate_block    cells, entries of the corners, interpolation along each axis
//   weigh_block     weights of the corners, or
//   tangent_block   rates of the weights along a direction
//   gather_block / scatter_block / product_block    the accesses
#pragma once
#include "grid.h"

namespace lg {

constexpr int GRID_BLOCK = 64;

template <int D>
struct GridBlock {
  uint32_t index[1 << D][GRID_BLOCK];
  float weight[1 << D][GRID_BLOCK];
  float value[D][GRID_BLOCK], slope[D][GRID_BLOCK], curvature[D][GRID_BLOCK];
};

template <int F>
struct GridEntry {  // F = 1 included: a vector of one float behaves like a float
  typedef float type __attribute__((vector_size(4 * F), aligned(4), may_alias));
};

// `cell` is overwritten: the products with the factors are formed once for all corners.
template <int D, bool DENSE>
inline void index_block(uint32_t (&cell)[D][GRID_BLOCK], const GridLevel& level, int n,
                        GridBlock<D>& block) {
  uint32_t factor[D];
  index_factors<D>(level, DENSE, factor);
  const uint32_t mask = level.size - 1;
  for (int d = 1; d < D; ++d) {
#pragma omp simd
    for (int j = 0; j < n; ++j) cell[d][j] *= factor[d];
  }
  for (int c = 0; c < 1 << D; ++c) {
    uint32_t* index = block.index[c];
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      uint32_t sum = cell[0][j] + (c & 1);
      LG_UNROLL
      for (int d = 1; d < D; ++d) {
        const uint32_t term = cell[d][j] + (c >> d & 1 ? factor[d] : 0);
        sum = DENSE ? sum + term : sum ^ term;
      }
      index[j] = DENSE ? sum : sum & mask;
    }
  }
}

// Points x (n, D), n <= GRID_BLOCK
template <int D>
inline void locate_block(const float* x, const GridLevel& level, bool smooth, int n,
                         GridBlock<D>& block) {
  uint32_t cell[D][GRID_BLOCK];
  for (int d = 0; d < D; ++d) {
    float* value = block.value[d];
#pragma omp simd
    for (int j = 0; j < n; ++j) locate(level, x[D * j + d], cell[d][j], value[j]);
    if (!smooth) continue;
#pragma omp simd
    for (int j = 0; j < n; ++j)
      ease<true>(value[j], value[j], block.slope[d][j], block.curvature[d][j]);
  }
  if (is_dense<D>(level))
    index_block<D, true>(cell, level, n, block);
  else
    index_block<D, false>(cell, level, n, block);
}

template <int D>
inline void weigh_block(int n, GridBlock<D>& block) {
  for (int c = 0; c < 1 << D; ++c) {
    float* weight = block.weight[c];
#pragma omp simd
    for (int j = 0; j < n; ++j) {
      float product = 1.0f;
      LG_UNROLL
      for (int d = 0; d < D; ++d)
        product *= c >> d & 1 ? block.value[d][j] : 1.0f - block.value[d][j];
      weight[j] = product;
    }
  }
}

// `direction` (n, D) is zero along axes where the position was clamped
template <int D>
inline void tangent_block(const float* direction, const GridLevel& level, bool smooth, int n,
                          GridBlock<D>& block) {
  for (int j = 0; j < n; ++j) {
    float value[D], rate[D], tangent[1 << D];
    for (int d = 0; d < D; ++d) {
      value[d] = block.value[d][j];
      rate[d] = direction[D * j + d] * level.scale * (smooth ? block.slope[d][j] : 1.0f);
    }
    tangent_weights<D>(value, rate, tangent);
    for (int c = 0; c < 1 << D; ++c) block.weight[c][j] = tangent[c];
  }
}

// Corners 2e and 2e + 1 mostly share a cache line while entries are small: one request for both.
template <int D, int F, bool WRITE>
inline void prefetch_block(const float* table, int n, const GridBlock<D>& block) {
  for (int c = 0; c < 1 << D; c += F <= 4 ? 2 : 1)
    for (int j = 0; j < n; ++j)
      __builtin_prefetch(table + F * (size_t)block.index[c][j], WRITE ? 1 : 0);
}

// features (n, F) of one level, rows `stride` floats apart. `table` starts at the level.
template <int D, int F>
inline void gather_block(const float* table, int n, const GridBlock<D>& block, float* features,
                         int64_t stride) {
  typedef typename GridEntry<F>::type Entry;
  prefetch_block<D, F, false>(table, n, block);
  for (int j = 0; j < n; ++j) {
    Entry sum = {};
    LG_UNROLL
    for (int c = 0; c < 1 << D; ++c)
      sum += block.weight[c][j] * *(const Entry*)(table + F * (size_t)block.index[c][j]);
    *(Entry*)(features + j * stride) = sum;
  }
}

// Adds weight * gradient (n, F) to the corners' entries in `table`.
template <int D, int F>
inline void scatter_block(const float* gradient, int64_t stride, int n, const GridBlock<D>& block,
                          float* table) {
  typedef typename GridEntry<F>::type Entry;
  prefetch_block<D, F, true>(table, n, block);
  for (int j = 0; j < n; ++j) {
    const Entry row = *(const Entry*)(gradient + j * stride);
    LG_UNROLL
    for (int c = 0; c < 1 << D; ++c)
      *(Entry*)(table + F * (size_t)block.index[c][j]) += block.weight[c][j] * row;
  }
}

// product[c][j] = corner entry . gradient
template <int D, int F>
inline void product_block(const float* table, const float* gradient, int64_t stride, int n,
                          const GridBlock<D>& block, float (&product)[1 << D][GRID_BLOCK]) {
  prefetch_block<D, F, false>(table, n, block);
  for (int j = 0; j < n; ++j) {
    const float* row = gradient + j * stride;
    for (int c = 0; c < 1 << D; ++c) {
      const float* entry = table + F * (size_t)block.index[c][j];
      float sum = 0.0f;
      LG_UNROLL
      for (int f = 0; f < F; ++f) sum += entry[f] * row[f];
      product[c][j] = sum;
    }
  }
}

}  // namespace lg
