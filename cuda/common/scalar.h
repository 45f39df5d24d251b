// Scalar vocabulary of every kernel: one header for g++ (CPU operations), NVRTC (CUDA kernels)
// and the emulator (CUDA kernels on the CPU). Everything here is a function of a few numbers.
//
// NVRTC has no <cstdint> and no <cmath>: the integer types are spelled out for it, and its maths
// functions (fmaf, floorf, expf, ...) are built in under the names that <cmath> gives g++.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define LG_HD __host__ __device__ __forceinline__
#else
#define LG_HD inline __attribute__((always_inline))
#endif

// A function of the CPU library that Python calls through ctypes.
#define LG_EXPORT extern "C" __attribute__((visibility("default")))

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <cmath>
#include <cstdint>
#include <cstring>
#endif

namespace lg {

LG_HD uint32_t float_bits(float value) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(value);
#else
  uint32_t bits = 0;
  memcpy(&bits, &value, 4);
  return bits;
#endif
}

LG_HD float float_from_bits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float value = 0.0f;
  memcpy(&value, &bits, 4);
  return value;
#endif
}

LG_HD int32_t minimum(int32_t a, int32_t b) { return a < b ? a : b; }
LG_HD int32_t maximum(int32_t a, int32_t b) { return a > b ? a : b; }
LG_HD float minimum(float a, float b) { return a < b ? a : b; }
LG_HD float maximum(float a, float b) { return a > b ? a : b; }

// Into [0, 1]; NaN becomes 0, so that the result may always be turned into an index.
LG_HD float clamp_unit(float x) {
#ifdef __CUDA_ARCH__
  return __saturatef(x);
#else
  const float low = x > 0.0f ? x : 0.0f;
  return low < 1.0f ? low : 1.0f;
#endif
}

// a * b + c with one rounding. The GPU rounds once, so the CPU must too: a product rounded before
// the sum moves positions across cell borders. Without the instruction the sum is formed in
// double, where the product is exact; the second rounding then hardly ever shows.
LG_HD float multiply_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__aarch64__)
  return fmaf(a, b, c);
#else
  return (float)((double)a * (double)b + (double)c);
#endif
}

}  // namespace lg
