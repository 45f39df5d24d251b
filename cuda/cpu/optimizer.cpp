// Adam and moving averages on the CPU, in place, one pass over memory, which is what limits them.
//
// Vectors of 16 whose gradients are all zero are skipped unread when asked: most entries of a hash
// table are not touched by a batch, and then only the gradient is read.
#include <cmath>
#include <cstdint>

#define LG_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t WIDTH = 16;
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

inline bool is_usable(float x) { return std::fabs(x) <= LARGEST_GRADIENT; }  // false for NaN

inline _Float16 to_half(float x) {
  return (_Float16)(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x);
}

// `count` entries (at most WIDTH); returns how many gradients were refused.
template <bool HALF_COPY>
inline int64_t step(float* __restrict__ param, float* __restrict__ grad, float* __restrict__ m,
                    float* __restrict__ v, _Float16* __restrict__ half_copy, int64_t count,
                    const Settings& s) {
  int32_t bad = 0, touched = 0;
#pragma omp simd reduction(+ : bad) reduction(| : touched)
  for (int64_t i = 0; i < count; ++i) {
    bad += !is_usable(grad[i]);
    touched |= grad[i] != 0.0f;  // NaN differs from 0
  }
  if (!touched && s.skip_zero) return 0;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float g0 = is_usable(grad[i]) ? grad[i] * s.inverse_scale : 0.0f;
    const bool skip = s.skip_zero && g0 == 0.0f;
    const float g = g0 + s.weight_decay * param[i];
    const float first = s.beta1 * m[i] + (1.0f - s.beta1) * g;
    const float second = s.beta2 * v[i] + (1.0f - s.beta2) * g * g;
    const float change =
        s.step_size * first / (std::sqrt(second * s.second_correction) + s.eps);
    m[i] = skip ? m[i] : first;
    v[i] = skip ? v[i] : second;
    param[i] = skip ? param[i] : param[i] - change;
    grad[i] = s.zero_grad ? 0.0f : grad[i];
  }
  if (HALF_COPY)
    for (int64_t i = 0; i < count; ++i) half_copy[i] = to_half(param[i]);
  return bad;
}

template <bool HALF_COPY>
int64_t step_all(float* param, float* grad, float* m, float* v, _Float16* half_copy, int64_t size,
                 const Settings& s) {
  int64_t bad = 0;
  const int64_t vectors = size / WIDTH;
#pragma omp parallel for schedule(static) reduction(+ : bad)
  for (int64_t vector = 0; vector < vectors; ++vector) {
    const int64_t i = vector * WIDTH;
    bad += step<HALF_COPY>(param + i, grad + i, m + i, v + i, half_copy + i, WIDTH, s);
  }
  const int64_t i = vectors * WIDTH;
  if (i < size)
    bad += step<HALF_COPY>(param + i, grad + i, m + i, v + i, half_copy + i, size - i, s);
  return bad;
}

}  // namespace

// half_copy (fp16) and bad_count (one number, added to) may be null.
LG_API void lg_adam_step(float* param, float* grad, float* exp_avg, float* exp_avg_sq,
                         void* half_copy, int32_t* bad_count, int64_t size,
                         const void* settings) {
  const Settings& s = *(const Settings*)settings;
  const int64_t bad =
      half_copy
          ? step_all<true>(param, grad, exp_avg, exp_avg_sq, (_Float16*)half_copy, size, s)
          : step_all<false>(param, grad, exp_avg, exp_avg_sq, nullptr, size, s);
  if (bad_count) *bad_count += (int32_t)bad;
}

LG_API void lg_ema_step(float* average, const float* param, float rate, int64_t size) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) average[i] += rate * (param[i] - average[i]);
}
