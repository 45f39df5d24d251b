// exp() that the compiler turns into vector code inside a loop: g++ vectorises the library's only
// with -ffast-math. Relative error below 2e-7 (Cody-Waite reduction, degree-6 polynomial).
#pragma once
#include <cstdint>
#include <cstring>

namespace lg {

// Arguments below -87.3 give 0 (denormals are not made); above 88.7 the result is clamped near
// the largest float. NaN stays NaN.
static inline float exponential(float x) {
  constexpr float ROUNDER = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;
  const float clamped = x > 88.7f ? 88.7f : (x < -87.3f ? -87.3f : x);
  const float n = (clamped * 1.44269504f + ROUNDER) - ROUNDER;
  const float r = (clamped - n * LN2_HIGH) - n * LN2_LOW;
  float p = 1.98756915e-4f;
  p = p * r + 1.39819995e-3f;
  p = p * r + 8.33345191e-3f;
  p = p * r + 4.16657962e-2f;
  p = p * r + 1.66666655e-1f;
  p = p * r + 5.00000000e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: n reaches 128, one exponent field does not
  const int32_t half = (int32_t)n >> 1, rest = (int32_t)n - half;
  const uint32_t first_bits = (uint32_t)(half + 127) << 23;
  const uint32_t second_bits = (uint32_t)(rest + 127) << 23;
  float first = 0.0f, second = 0.0f;
  memcpy(&first, &first_bits, 4);
  memcpy(&second, &second_bits, 4);
  const float result = p * first * second;
  return x < -87.3f ? 0.0f : result;
}

}  // namespace lg
