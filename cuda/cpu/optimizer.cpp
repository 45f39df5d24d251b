// Adam and moving averages on the CPU, in place, one pass over memory, which is what limits them.
//
// Groups whose gradients are all zero are left unread when asked: a batch leaves many entries of a
// hash table untouched, and then only the gradient is read.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include "adam.h"

namespace {

using Settings = lg::AdamSettings;

constexpr int64_t GROUP = 32;  // entries: two cache lines of every tensor

// Plain float arithmetic and selections only: the loops below must become vector code.
inline float usable(float g) { return lg::is_usable(g) ? g : 0.0f; }

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
    refused += lg::is_usable(grad[i]) ? 0 : 1;
  }
  bad += refused;
  return touched != 0;
}

// How far entry i moves, and whether it is left alone: all alike ...
template <bool SKIP_ZERO>
struct Everywhere {
  float rate;
  float step_size(int64_t) const { return rate; }
  bool still(int64_t, float g) const { return SKIP_ZERO && g == 0.0f; }
};

// ... or by place: moving (may be null unless MASKED) tells which entries do.
template <bool MASKED>
struct ByPlace {
  const float* rates;
  const int32_t* moving;
  float step_size(int64_t i) const { return rates[i]; }
  bool still(int64_t i, float) const { return MASKED && moving[i] == 0; }
};

template <typename Rule>
inline void move(float* __restrict__ param, const float* __restrict__ grad, float* __restrict__ m,
                 float* __restrict__ v, int64_t count, const Settings s, const Rule rule) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float g = usable(grad[i]) * s.inverse_scale;
    const lg::AdamEntry old{param[i], m[i], v[i]}, e = lg::adam(g, old, rule.step_size(i), s);
    const bool still = rule.still(i, g);
    m[i] = still ? old.first : e.first;
    v[i] = still ? old.second : e.second;
    param[i] = still ? old.param : e.param;
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
      move(param + i, grad + i, m + i, v + i, count, settings,
           Everywhere<true>{settings.step_size});
    else
      move(param + i, grad + i, m + i, v + i, count, settings,
           Everywhere<false>{settings.step_size});
    if (settings.zero_grad) std::memset(grad + i, 0, sizeof(float) * count);
    if (half_copy) to_half(param + i, half_copy + i, count);
  }
  return bad;
}

// Rows of one tensor: the first `head` entries of a row move by step_size, the rest by tail_step.
struct Rows {
  int64_t count, length;
  const uint8_t* visible;  // or null; rows with 0 are left alone
  std::vector<float> steps;  // of the entries of one group
  int64_t group;           // rows

  Rows(int64_t count, int64_t length, int64_t head, const uint8_t* visible, float step_size,
       float tail_step)
      : count(count),
        length(length),
        visible(visible),
        group(std::max<int64_t>(1, SHORT / std::max<int64_t>(length, 1))) {
    for (int64_t i = 0; i < group * length; ++i)
      steps.push_back(i % length < head ? step_size : tail_step);
  }

  // Which entries of a group of several rows move; returns how many.
  int64_t mark(int64_t first, int64_t rows, int32_t* moving) const {
    int64_t found = 0;
    for (int64_t i = 0; i < rows * length; ++i) {
      moving[i] = visible[first + i / length] != 0;
      found += moving[i];
    }
    return found;
  }

  static constexpr int64_t SHORT = 64;  // entries of a group of several rows, at the most
};

// One group; returns how many gradients were refused.
int64_t step_group(float* param, const float* grad, float* m, float* v, const Rows& rows,
                   int64_t first, const Settings& settings) {
  const int64_t number = std::min(rows.group, rows.count - first), size = number * rows.length;
  const float* steps = rows.steps.data();
  int32_t moving[Rows::SHORT];
  int64_t bad = 0;
  bool all = !rows.visible;
  if (!all && rows.group > 1) {
    const int64_t found = rows.mark(first, number, moving);
    if (!found) return 0;
    all = found == size;
  } else if (!all) {
    if (!rows.visible[first]) return 0;
    all = true;
  }
  if (all) {
    look(grad, size, bad);
    move(param, grad, m, v, size, settings, ByPlace<false>{steps, nullptr});
  } else {
    for (int64_t i = 0; i < size; ++i) bad += moving[i] && !lg::is_usable(grad[i]);
    move(param, grad, m, v, size, settings, ByPlace<true>{steps, moving});
  }
  return bad;
}

}  // namespace

// half_copy (fp16) and bad_count (one number, added to) may be null.
LG_EXPORT void lg_adam_step(float* param, float* grad, float* exp_avg, float* exp_avg_sq,
                            void* half_copy, int32_t* bad_count, int64_t size,
                            const void* settings) {
  const Settings& s = *(const Settings*)settings;
  const int64_t bad =
      step_all(param, grad, exp_avg, exp_avg_sq, (uint16_t*)half_copy, size, s);
  if (bad_count) *bad_count += (int32_t)bad;
}

// visible: one byte a row, or null. The learning rate of settings is that of a row's first `head`
// entries.
LG_EXPORT void lg_adam_rows(float* param, float* grad, float* exp_avg, float* exp_avg_sq,
                            const uint8_t* visible, int32_t* bad_count, int64_t rows,
                            int64_t length, int64_t head, float tail_step, const void* settings) {
  const Settings& s = *(const Settings*)settings;
  const Rows all(rows, length, head, visible, s.step_size, tail_step);
  int64_t bad = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad)
  for (int64_t first = 0; first < rows; first += all.group) {
    const int64_t i = first * length, size = std::min(all.group, rows - first) * length;
    bad += step_group(param + i, grad + i, exp_avg + i, exp_avg_sq + i, all, first, s);
    if (s.zero_grad) std::memset(grad + i, 0, sizeof(float) * size);
  }
  *bad_count += (int32_t)bad;
}

LG_EXPORT void lg_ema_step(float* average, const float* param, float rate, int64_t size) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < size; ++i) average[i] += rate * (param[i] - average[i]);
}
