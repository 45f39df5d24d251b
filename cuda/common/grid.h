// Multiresolution grids: where a point lies in one level, and the weights of the corners of its
// cell. Shared by the CPU kernels, the CUDA kernels and the emulator.
//
// A level has `resolution` vertices along each axis. A position x in [0, 1] lies at
// t = x * scale + 0.5, in the cell floor(t) (at most resolution - 2, so that every corner exists)
// at the fraction t - cell. The fraction passes 1 in the last half cell of a level whose scale is
// a whole number: the linear weights then extrapolate, the smooth ones stay at their end value.
//
// Dense levels store vertex (x, y, z) at x + R y + R^2 z. The others hash it to
// (x xor y p1 xor z p2) mod size, where size is a power of two.
// Corner c of a cell has the offset (c >> d) & 1 along axis d: corners 2e and 2e + 1 differ in x.
#pragma once
#include "scalar.h"

#ifdef __CUDACC_RTC__
#define LG_UNROLL _Pragma("unroll")
#else
#define LG_UNROLL _Pragma("GCC unroll 16")
#endif

namespace lg {

struct GridLevel {
  float scale;
  uint32_t resolution;  // vertices along an axis
  uint32_t size;        // entries
  uint32_t offset;      // entries before this level
};

// The first factor is 1 on purpose: corners that differ in x are neighbours in memory.
LG_HD uint32_t hash_factor(int axis) {
  return axis == 0 ? 1u : axis == 1 ? 2654435761u : axis == 2 ? 805459861u : 3674653429u;
}

template <int D>
LG_HD bool is_dense(const GridLevel& level) {
  uint64_t vertices = 1;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    if (vertices > level.size) return false;  // and no product overflows
    vertices *= level.resolution;
  }
  return vertices <= level.size;
}

// What a coordinate is multiplied with before the sum (dense) or the exclusive or (hashed).
template <int D>
LG_HD void index_factors(const GridLevel& level, bool dense, uint32_t (&factor)[D]) {
  uint32_t stride = 1;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    factor[d] = dense ? stride : hash_factor(d);
    stride *= level.resolution;
  }
}

template <int D>
LG_HD uint32_t corner_index(const uint32_t (&cell)[D], const uint32_t (&factor)[D], int corner,
                            bool dense, uint32_t mask) {
  uint32_t index = cell[0] + (corner & 1);
  LG_UNROLL
  for (int d = 1; d < D; ++d) {
    const uint32_t term = (cell[d] + (corner >> d & 1)) * factor[d];
    index = dense ? index + term : index ^ term;
  }
  return dense ? index : index & mask;
}

LG_HD void locate(const GridLevel& level, float x, uint32_t& cell, float& fraction) {
  const float t = multiply_add(clamp_unit(x), level.scale, 0.5f);
  const int32_t vertex = minimum((int32_t)t, (int32_t)level.resolution - 2);
  cell = (uint32_t)vertex;
  fraction = t - (float)vertex;
}

// Interpolation along one axis: the weight of the upper vertex and its first two derivatives by
// the fraction.
template <bool SMOOTH>
LG_HD void ease(float fraction, float& value, float& slope, float& curvature) {
  if (SMOOTH) {
    const float f = minimum(fraction, 1.0f);
    value = f * f * (3.0f - 2.0f * f);
    slope = 6.0f * f * (1.0f - f);
    curvature = fraction < 1.0f ? 6.0f - 12.0f * f : 0.0f;
  } else {
    value = fraction;
    slope = 1.0f;
    curvature = 0.0f;
  }
}

// Weights of all corners. `value` holds the weight of the upper vertex along each axis.
template <int D>
LG_HD void corner_weights(const float (&value)[D], float (&weight)[1 << D]) {
  weight[0] = 1.0f;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    LG_UNROLL
    for (int c = 0; c < 1 << d; ++c) {
      weight[c + (1 << d)] = weight[c] * value[d];
      weight[c] -= weight[c + (1 << d)];
    }
  }
}

// Rates at which the weights change when `value` changes at `rate` (product rule).
template <int D>
LG_HD void tangent_weights(const float (&value)[D], const float (&rate)[D],
                           float (&tangent)[1 << D]) {
  float weight[1 << D];
  weight[0] = 1.0f;
  tangent[0] = 0.0f;
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    LG_UNROLL
    for (int c = 0; c < 1 << d; ++c) {
      const int upper = c + (1 << d);
      tangent[upper] = tangent[c] * value[d] + weight[c] * rate[d];
      tangent[c] -= tangent[upper];
      weight[upper] = weight[c] * value[d];
      weight[c] -= weight[upper];
    }
  }
}

// Sum of corner values times weights, where along the axes of the bit mask `derived` the
// difference of the two vertices times `gain` stands for the interpolation.
template <int D>
LG_HD float fold_corners(const float (&corner)[1 << D], const float (&value)[D],
                         const float (&gain)[D], int derived) {
  float folded[1 << D];
  LG_UNROLL
  for (int c = 0; c < 1 << D; ++c) folded[c] = corner[c];
  LG_UNROLL
  for (int d = 0; d < D; ++d) {
    LG_UNROLL
    for (int c = 0; c < 1 << (D - 1 - d); ++c) {
      const float difference = folded[2 * c + 1] - folded[2 * c];
      folded[c] = derived >> d & 1 ? gain[d] * difference
                                   : multiply_add(value[d], difference, folded[2 * c]);
    }
  }
  return folded[0];
}

// Adds scale * gradient of the interpolated corner values by the position.
template <int D>
LG_HD void add_gradient(const float (&corner)[1 << D], const float (&value)[D],
                        const float (&slope)[D], float scale, float (&total)[D]) {
  LG_UNROLL
  for (int d = 0; d < D; ++d)
    total[d] += scale * fold_corners<D>(corner, value, slope, 1 << d);
}

// Adds scale^2 * Hessian times `direction`. Linear weights have mixed second derivatives only.
template <int D, bool SMOOTH>
LG_HD void add_curvature(const float (&corner)[1 << D], const float (&value)[D],
                         const float (&slope)[D], const float (&curvature)[D],
                         const float (&direction)[D], float scale, float (&total)[D]) {
  const float square = scale * scale;
  LG_UNROLL
  for (int a = 0; a < D; ++a) {
    if (SMOOTH)
      total[a] += square * direction[a] * fold_corners<D>(corner, value, curvature, 1 << a);
    LG_UNROLL
    for (int b = a + 1; b < D; ++b) {
      const float mixed = square * fold_corners<D>(corner, value, slope, 1 << a | 1 << b);
      total[a] += direction[b] * mixed;
      total[b] += direction[a] * mixed;
    }
  }
}

}  // namespace lg
