// What the surface kernels hand to each other. A row is one point: the inputs of the network, or
// numbers that belong to them, as LG_LEVELS * LG_FEATURES features, three for the position, and
// zeros up to a multiple of 16, in fp16. Features come first so that whole vectors hold levels.
//
//   inputs (points, KINDS, ROW)   x, then its rates along the three axes (without LG_RATES x alone)
//   slopes (points, 2, ROW)       gradients of the loss by x, scaled, and of the distance by x
#pragma once
#include "matrix.h"

#ifndef LG_LEVELS
#define LG_LEVELS 14
#endif
#ifndef LG_FEATURES
#define LG_FEATURES 2
#endif
#ifndef LG_RATES
#define LG_RATES 1
#endif

constexpr int ENCODED = LG_LEVELS * LG_FEATURES;
constexpr int ROW = (ENCODED + 3 + 15) / 16 * 16;
constexpr int KINDS = LG_RATES ? 4 : 1;

// The power of two that brings the largest gradient to 16..31: room for the rates of fine levels,
// some twenty octaves above the smallest fp16 number.
__device__ inline float scale_for(float largest) {
  const int exponent = (int)(lg::float_bits(largest) >> 23 & 255);
  if (largest == 0.0f || exponent == 255) return 1.0f;
  const int wanted = 4 + 2 * 127 - exponent;
  return lg::float_from_bits((uint32_t)lg::minimum(wanted, 252) << 23);
}
