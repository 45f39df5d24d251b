// L1 and structural dissimilarity on the CPU. A thread takes whole rows of the picture, H rows of
// 3 W numbers: first the window along the columns, from eleven rows into row buffers in the first
// cache, then along the row, where the taps lie three numbers apart. Nothing of the picture's size
// is kept but the three maps that the gradient needs. Sums are formed by row, then over the rows
// in order: the same for any number of threads. Limited by arithmetic: about 100 multiply-adds
// forward, 70 backward for each number.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "image_loss.h"

namespace {

using lg::CHANNELS;
using lg::REACH;
using lg::SIDE;
using lg::TAPS;

// Of one picture. Rows outside are read from `zeros`.
struct Picture {
  const float *prediction, *target, *weight;  // weight may be null
  int64_t height, width;                      // width in numbers: 3 W
  const float* zeros;

  const float* row(const float* image, int64_t y) const {
    return y < 0 || y >= height ? zeros : image + y * width;
  }
};

// Row buffers with SIDE zeros at both ends.
class Buffers {
 public:
  Buffers(int count, int64_t width)
      : stride_(width + 2 * SIDE), data_((size_t)(count * stride_), 0.0f) {}
  float* operator[](int i) { return data_.data() + i * stride_ + SIDE; }

 private:
  int64_t stride_;
  std::vector<float> data_;
};

// The loop must be unrolled before the loop around it can become vector code.
inline float along_row(const float* buffer, int64_t i) {
  float sum = 0.0f;
#pragma GCC unroll 11
  for (int k = 0; k < TAPS; ++k) sum += lg::tap(k) * buffer[i + CHANNELS * (k - REACH)];
  return sum;
}

// Weight of every number of a row; what is not above 0 counts as 0.
void spread_weights(const Picture& image, int64_t y, float* __restrict__ out) {
  const int64_t pixels = image.width / CHANNELS;
  const float* from = image.weight + y * pixels;
  for (int64_t x = 0; x < pixels; ++x) {
    const float w = from[x] > 0.0f ? from[x] : 0.0f;
    for (int c = 0; c < CHANNELS; ++c) out[CHANNELS * x + c] = w;
  }
}

// Windows along the columns of t, b, b^2 and p^2 + t^2.
void columns_of_pictures(const Picture& image, int64_t y, float* __restrict__ t_out,
                         float* __restrict__ b_out, float* __restrict__ bb_out,
                         float* __restrict__ squares_out) {
  const float *p[TAPS], *t[TAPS];
  for (int k = 0; k < TAPS; ++k) {
    p[k] = image.row(image.prediction, y + k - REACH);
    t[k] = image.row(image.target, y + k - REACH);
  }
#pragma omp simd
  for (int64_t i = 0; i < image.width; ++i) {
    float sum_t = 0.0f, sum_b = 0.0f, sum_bb = 0.0f, sum_squares = 0.0f;
#pragma GCC unroll 11
    for (int k = 0; k < TAPS; ++k) {
      const float one = p[k][i], other = t[k][i], b = one - other, tap_b = lg::tap(k) * b;
      sum_t += lg::tap(k) * other;
      sum_b += tap_b;
      sum_bb += tap_b * b;
      sum_squares += lg::tap(k) * (one * one + other * other);
    }
    t_out[i] = sum_t;
    b_out[i] = sum_b;
    bb_out[i] = sum_bb;
    squares_out[i] = sum_squares;
  }
}

// Sums of one row: w |b|, w b^2, w.
void add_differences(const Picture& image, int64_t y, const float* w, double* sums) {
  const float *p = image.prediction + y * image.width, *t = image.target + y * image.width;
  float absolute = 0.0f, square = 0.0f, weight = 0.0f;
#pragma omp simd reduction(+ : absolute, square, weight)
  for (int64_t i = 0; i < image.width; ++i) {
    const float b = p[i] - t[i];
    absolute += w[i] * std::fabs(b);
    square += w[i] * b * b;
    weight += w[i];
  }
  sums[0] = absolute, sums[1] = square, sums[3] = (double)weight / CHANNELS;
}

// Sum of w SSIM over one row; `maps` are the row's three, where they are kept.
template <bool KEEP>
double add_similarity(int64_t width, Buffers& columns, const float* __restrict__ w,
                      float* const* maps) {
  const float *t = columns[0], *b = columns[1], *bb = columns[2], *squares = columns[3];
  float *__restrict__ first = maps[0], *__restrict__ second = maps[1];
  float* __restrict__ third = maps[2];
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) {
    const lg::Similarity s = lg::similarity(along_row(t, i), along_row(b, i), along_row(bb, i),
                                            along_row(squares, i));
    sum += w[i] * s.value;
    if (KEEP) {
      first[i] = w[i] * s.maps[0];
      second[i] = w[i] * s.maps[1];
      third[i] = w[i] * s.maps[2];
    }
  }
  return sum;
}

void row_sums(const Picture& image, int64_t y, bool ssim, float* maps, Buffers& buffers,
              double* sums) {
  const int64_t size = image.height * image.width;
  if (image.weight) spread_weights(image, y, buffers[4]);
  add_differences(image, y, buffers[4], sums);
  if (!ssim) return;
  columns_of_pictures(image, y, buffers[0], buffers[1], buffers[2], buffers[3]);
  float* rows[3];
  for (int j = 0; j < 3; ++j) rows[j] = maps ? maps + j * size + y * image.width : nullptr;
  sums[2] = maps ? add_similarity<true>(image.width, buffers, buffers[4], rows)
                 : add_similarity<false>(image.width, buffers, buffers[4], rows);
}

// Windows along the columns of the three maps.
void columns_of_maps(const Picture& image, const float* maps, int64_t y, Buffers& buffers) {
  const int64_t size = image.height * image.width;
  for (int j = 0; j < 3; ++j) {
    const float* from[TAPS];
    for (int k = 0; k < TAPS; ++k) from[k] = image.row(maps + j * size, y + k - REACH);
    float* __restrict__ out = buffers[j];
#pragma omp simd
    for (int64_t i = 0; i < image.width; ++i) {
      float sum = 0.0f;
#pragma GCC unroll 11
      for (int k = 0; k < TAPS; ++k) sum += lg::tap(k) * from[k][i];
      out[i] = sum;
    }
  }
}

// gradient = l1 w sign(b) + ssim d SSIM / d p, 0 where w is.
template <bool SSIM>
void row_gradient(const Picture& image, int64_t y, float l1, float ssim, Buffers& buffers,
                  float* __restrict__ out) {
  const float *p = image.prediction + y * image.width, *t = image.target + y * image.width;
  const float *first = buffers[0], *second = buffers[1], *third = buffers[2], *w = buffers[4];
#pragma omp simd
  for (int64_t i = 0; i < image.width; ++i) {
    const float b = p[i] - t[i];
    float sum = l1 * w[i] * lg::sign(b);
    if (SSIM)
      sum += 2.0f * ssim * (along_row(first, i) + b * along_row(second, i) +
                            p[i] * along_row(third, i));
    out[i] = w[i] > 0.0f ? sum : 0.0f;
  }
}

constexpr int BUFFERS = 5;  // four windows and the weights

}  // namespace

// prediction, target (H, W, 3), the target's values where weight (H, W; may be null) is 0. maps
// (3, H, W, 3) may be null. loss: one number; values: l1, ssim, squared error.
LG_EXPORT void lg_image_loss(const float* prediction, const float* target, const float* weight,
                             int64_t height, int64_t width, float ssim_weight, float* maps,
                             float* loss, float* values) {
  const std::vector<float> zeros((size_t)(width * CHANNELS), 0.0f);
  const Picture image{prediction, target, weight, height, width * CHANNELS, zeros.data()};
  std::vector<double> sums((size_t)(4 * height), 0.0);
#pragma omp parallel
  {
    Buffers buffers(BUFFERS, image.width);
    std::fill_n(buffers[4], image.width, 1.0f);
#pragma omp for schedule(static)
    for (int64_t y = 0; y < height; ++y)
      row_sums(image, y, ssim_weight != 0.0f, maps, buffers, sums.data() + 4 * y);
  }
  double total[4] = {0.0, 0.0, 0.0, 0.0};
  for (int64_t i = 0; i < 4 * height; ++i) total[i % 4] += sums[i];
  *loss = lg::finish_loss(total, ssim_weight, height * width, values);
}

// gradient: one number, by the loss. out (H, W, 3).
LG_EXPORT void lg_image_loss_backward(const float* prediction, const float* target,
                                      const float* weight, const float* maps,
                                      const float* gradient, int64_t height, int64_t width,
                                      float ssim_weight, float* out) {
  const std::vector<float> zeros((size_t)(width * CHANNELS), 0.0f);
  const Picture image{prediction, target, weight, height, width * CHANNELS, zeros.data()};
  const float scale = *gradient / (float)std::max<int64_t>(height * image.width, 1);
  const float l1 = scale * (1.0f - ssim_weight), ssim = -scale * ssim_weight;
#pragma omp parallel
  {
    Buffers buffers(BUFFERS, image.width);
    std::fill_n(buffers[4], image.width, 1.0f);
#pragma omp for schedule(static)
    for (int64_t y = 0; y < height; ++y) {
      float* row = out + y * image.width;
      if (weight) spread_weights(image, y, buffers[4]);
      if (ssim_weight != 0.0f) {
        columns_of_maps(image, maps, y, buffers);
        row_gradient<true>(image, y, l1, ssim, buffers, row);
      } else {
        row_gradient<false>(image, y, l1, ssim, buffers, row);
      }
    }
  }
}
