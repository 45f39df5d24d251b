// Eight floats as one vector: types of GCC and Clang that become SSE2, AVX2, AVX-512 or NEON.
#pragma once
#include <cstdint>

namespace lg {

typedef float Vector __attribute__((vector_size(32), may_alias));
typedef int32_t Mask __attribute__((vector_size(32), may_alias));

constexpr int LANES = 8;
const Vector PLACES = {0, 1, 2, 3, 4, 5, 6, 7};

// One bit a lane.
inline uint32_t bits_of(Mask m) {
#ifdef __AVX__
  return (uint32_t)__builtin_ia32_movmskps256((Vector)m);
#else
  uint32_t bits = 0;
  for (int i = 0; i < LANES; ++i) bits |= (uint32_t)(m[i] != 0) << i;
  return bits;
#endif
}

inline float sum(Vector v) {
  const float a = v[0] + v[4], b = v[1] + v[5], c = v[2] + v[6], d = v[3] + v[7];
  return (a + c) + (b + d);
}

#if defined(__clang__) || __GNUC__ >= 12
#define LG_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define LG_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Mask{__VA_ARGS__})
#endif

// The sums of eight vectors as one: lane i is the sum of v[i].
inline Vector sums(const Vector* v) {
  Vector four[4], two[2];
  for (int i = 0; i < 4; ++i)
    four[i] = LG_SHUFFLE(v[2 * i], v[2 * i + 1], 0, 1, 2, 3, 8, 9, 10, 11) +
              LG_SHUFFLE(v[2 * i], v[2 * i + 1], 4, 5, 6, 7, 12, 13, 14, 15);
  for (int i = 0; i < 2; ++i)
    two[i] = LG_SHUFFLE(four[2 * i], four[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13) +
             LG_SHUFFLE(four[2 * i], four[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15);
  return LG_SHUFFLE(two[0], two[1], 0, 2, 4, 6, 8, 10, 12, 14) +
         LG_SHUFFLE(two[0], two[1], 1, 3, 5, 7, 9, 11, 13, 15);
}

// exp for [-87, 0], relative error below 3e-7: 2^n times a polynomial for the rest
inline Vector exponential(Vector x) {
  x = x < -87.0f ? Vector{} - 87.0f : x;
  const Vector t = x * 1.44269504f;
  const Mask whole = __builtin_convertvector(t - 0.5f, Mask);
  const Vector f = t - __builtin_convertvector(whole, Vector);
  Vector p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  return p * (Vector)((whole + 127) << 23);
}

inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
inline Vector size_of(Vector a) { return a < 0.0f ? -a : a; }

}  // namespace lg
