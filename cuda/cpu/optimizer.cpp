// Adam and moving averages on the CPU, in place, one pass over memory, which is what limits them.
//
// Groups whose gradients are all zero are left unread when asked: a batch leaves many entries of a
// hash table untouched, and then only the gradient is read.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __F16C__
#include <immintrin.h>
#endif

#define LG_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t GROUP = 32;              // entries: two cache lines of every tensor
constexpr float LARGEST_GRADIENT = 1e18f;  // its square is still finite

// Mirrors _settings_bytes of cuda/optimizer.py.
struct Settings {
  float step_size;          // learning rate / (1 - beta1^t)
  float second_correction;  // 1 / (1 - beta2^t)
  float beta1, beta2, eps;
  float weight_decay;
  float inverse_scale;      // of the gradient
  int32_t skip_zero, zero_grad;
};

// Plain float arithmetic and selections only: the loops below must become vector code.
inline float usable(float g) { return std::fabs(g) <= LARGEST_GRADIENT ? g : 0.0f; }  // NaN: 0

inline void to_half(const float* from, uint16_t* to, int64_t count) {
  int64_t i = 0;
#ifdef __F16C__
  // a NaN in the second operand is what min and max return
  const __m256 largest = _mm256_set1_ps(65504.0f), smallest = _mm256_set1_ps(-65504.0f);
  for (; i + 8 <= count; i += 8) {
    const __m256 x = _mm256_min_ps(largest, _mm256_max_ps(smallest, _mm256_loadu_ps(from + i)));
    _mm_storeu_si128((__m128i*)(to + i), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  for (; i < count; ++i) {
    const float x = from[i];
    const _Float16 half = (_Float16)(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
    std::memcpy(to + i, &half, 2);
  }
}

// Whether any gradient is not zero (NaN is not); `bad` grows by the number of refused ones.
inline bool look(const float* grad, int64_t count, int64_t& bad) {
  int32_t touched = 0, refused = 0;
#pragma omp simd reduction(+ : touched, refused)
  for (int64_t i = 0; i < count; ++i) {
    touched += grad[i] != 0.0f ? 1 : 0;
    refused += std::fabs(grad[i]) <= LARGEST_GRADIENT ? 0 : 1;
  }
  bad += refused;
  return touched != 0;
}

template <bool SKIP_ZERO>
inline void move(float* __restrict__ param, const float* __restrict__ grad, float* __restrict__ m,
                 float* __restrict__ v, int64_t count, const Settings s) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = usable(grad[i]) * s.inverse_scale, p = param[i];
    const float g = scaled + s.weight_decay * p;
    const float first = s.beta1 * m[i] + (1.0f - s.beta1) * g;
    const float second = s.beta2 * v[i] + (1.0f - s.beta2) * g * g;
    const float moved = p - s.step_size * first / (std::sqrt(second * s.second_correction) + s.eps);
    const float old_first = m[i], old_second = v[i];
    m[i] = SKIP_ZERO && scaled == 0.0f ? old_first : first;
    v[i] = SKIP_ZERO && scaled == 0.0f ? old_second : second;
    param[i] = SKIP_ZERO && scaled == 0.0f ? p : moved;
  }
}

int64_t step_all(float* param, float* grad, float* m, float* v, uint16_t* half_copy, int64_t size,
                 const Settings& settings) {
  int64_t bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad)
  for (int64_t i = 0; i < size; i += GROUP) {
    const int64_t count = std::min(GROUP, size - i);
    const bool touched = look(grad + i, count, bad);
    if (!touched && settings.skip_zero) continue;
    if (settings.skip_zero)
      move<true>(param + i, grad + i, m + i, v + i, count, settings);
    else
      move<false>(param + i, grad + i, m + i, v + i, count, settings);
    if (settings.zero_grad) std::memset(grad + i, 0, sizeof(float) * count);
    if (half_copy) to_half(param + i, half_copy + i, count);
  }
  return bad;
}

}  // namespace

// half_copy (fp16) and bad_count (one number, added to) may be null.
LG_API void lg_adam_step(float* param, float* grad, float* exp_avg, float* exp_avg_sq,
                         void* half_copy, int32_t* bad_count, int64_t size,
                         const void* settings) {
  const Settings& s = *(const Settings*)settings;
  const int64_t bad =
      step_all(param, grad, exp_avg, exp_avg_sq, (uint16_t*)half_copy, size, s);
  if (bad_count) *bad_count += (int32_t)bad;
}

LG_API void lg_ema_step(float* average, const float* param, float rate, int64_t size) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) average[i] += rate * (param[i] - average[i]);
}
