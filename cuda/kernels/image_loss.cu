// L1 and structural dissimilarity of two pictures, H rows of 3 W numbers: sums and, where the
// gradient is wanted, three maps; then the gradient. Maths: common/image_loss.h.
//
// A block takes COLUMNS columns of numbers and walks down `rows` rows, with MARGIN more columns on
// both sides, one column a thread. A thread keeps eleven partial sums for each window in registers:
// a new row is added to all of them, the oldest is then a finished window along the column. The
// block puts one row of those into shared memory (two buffers, one barrier a row) and adds them up
// along the row, where the taps lie three numbers apart. Each block writes its sums in its own
// place; one block adds them in order, so results repeat exactly.
//
// Memory: forward 24 bytes a pixel and 36 for the maps, backward 72. Limited by shared memory:
// eleven 16-byte reads a number forward, 33 of 4 bytes backward.
// LG_SSIM 0: L1 alone, nothing of the above. LG_WEIGHTED: pixels have weights. LG_KEEP: write maps.
#include "device.h"
#include "image_loss.h"

#ifndef LG_SSIM
#define LG_SSIM 1
#endif
#ifndef LG_WEIGHTED
#define LG_WEIGHTED 0
#endif
#ifndef LG_KEEP
#define LG_KEEP 1
#endif

using lg::CHANNELS;
using lg::REACH;
using lg::TAPS;

constexpr int THREADS = 256;
constexpr int MARGIN = 16;  // at least lg::SIDE; a multiple of 16 keeps accesses aligned
constexpr int COLUMNS = THREADS - 2 * MARGIN;
constexpr int BEFORE = LG_SSIM ? REACH : 0;  // rows read above and below those of the block
constexpr int SUMS = 4;
constexpr int FORWARD_BLOCKS = 3, BACKWARD_BLOCKS = 4;  // an SM's at once; measured on an H100

struct Place {
  int column, first, last;  // rows [first, last)
  int pixel, pixels;        // of the column, of a row
  bool inside, own;         // column of the picture; one of the COLUMNS of this block
};

__device__ inline Place place_of(int width, int height, int rows) {
  Place at;
  at.column = (int)blockIdx.x * COLUMNS - MARGIN + (int)threadIdx.x;
  at.pixel = at.column / CHANNELS;
  at.pixels = width / CHANNELS;
  at.first = blockIdx.y * rows;
  at.last = lg::minimum(at.first + rows, height);
  at.inside = at.column >= 0 && at.column < width;
  at.own = at.inside && threadIdx.x >= MARGIN && threadIdx.x < MARGIN + COLUMNS;
  return at;
}

struct Pair {
  float p, t, w;
};

__device__ inline float weight_at(const float* __restrict__ weight, const Place& at, int row) {
  if (!LG_WEIGHTED) return 1.0f;
  const float w = weight[(size_t)row * at.pixels + at.pixel];
  return w > 0.0f ? w : 0.0f;
}

// Zeros outside of the picture; the target's value where the weight is 0.
__device__ inline Pair load(const float* __restrict__ prediction, const float* __restrict__ target,
                            const float* __restrict__ weight, const Place& at, int row, int width,
                            int height) {
  if (!at.inside || row < 0 || row >= height) return {0.0f, 0.0f, 0.0f};
  const size_t i = (size_t)row * width + at.column;
  const float t = target[i], w = weight_at(weight, at, row);
  return {w > 0.0f ? prediction[i] : t, t, w};
}

// Adds a row to the partial sums; sums[0] becomes the window around the row REACH above it.
__device__ inline void push(float (&sums)[TAPS], float value) {
#pragma unroll
  for (int k = 0; k + 1 < TAPS; ++k) sums[k] = fmaf(lg::tap(k), value, sums[k + 1]);
  sums[TAPS - 1] = lg::tap(TAPS - 1) * value;
}

__device__ inline float4 along_row(const float4* row) {
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
  for (int k = 0; k < TAPS; ++k) {
    const float4 one = row[CHANNELS * (k - REACH)];
    sum.x = fmaf(lg::tap(k), one.x, sum.x);
    sum.y = fmaf(lg::tap(k), one.y, sum.y);
    sum.z = fmaf(lg::tap(k), one.z, sum.z);
    sum.w = fmaf(lg::tap(k), one.w, sum.w);
  }
  return sum;
}

__device__ inline float along_row(const float* row) {
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < TAPS; ++k) sum = fmaf(lg::tap(k), row[CHANNELS * (k - REACH)], sum);
  return sum;
}

// Sums over the threads of a block of THREADS, into out[0 .. SUMS).
__device__ inline void block_sums(const float (&values)[SUMS], float* __restrict__ out) {
  __shared__ float parts[THREADS / 32][SUMS];
  for (int j = 0; j < SUMS; ++j) {
    float value = values[j];
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32][j] = value;
  }
  __syncthreads();
  if (threadIdx.x < SUMS) {
    float sum = 0.0f;
    for (int n = 0; n < THREADS / 32; ++n) sum += parts[n][threadIdx.x];
    out[threadIdx.x] = sum;
  }
}

// The row's similarity at this thread's column; `column` holds the windows along it.
__device__ inline float similarity_at(const float4* row, size_t i, size_t size, float w,
                                      float* __restrict__ maps) {
  const float4 all = along_row(row);
  const lg::Similarity s = lg::similarity(all.x, all.y, all.z, all.w);
  if (LG_KEEP) {
#pragma unroll
    for (int j = 0; j < 3; ++j) maps[j * size + i] = w * s.maps[j];
  }
  return w * s.value;
}

// width: numbers in a row. maps (3, H, W, 3). sums: SUMS numbers a block: w |b|, w b^2, w SSIM, w.
extern "C" __global__ void __launch_bounds__(THREADS, FORWARD_BLOCKS)
    image_loss(const float* __restrict__ prediction, const float* __restrict__ target,
               const float* __restrict__ weight, int width, int height, int rows,
               float* __restrict__ maps, float* __restrict__ sums) {
  __shared__ float4 windows[2][THREADS];
  const Place at = place_of(width, height, rows);
  const size_t size = (size_t)width * height;
  float t[TAPS] = {}, b[TAPS] = {}, bb[TAPS] = {}, squares[TAPS] = {};
  float found[SUMS] = {};
  Pair next = load(prediction, target, weight, at, at.first - BEFORE, width, height);
  for (int row = at.first - BEFORE; row < at.last + BEFORE; ++row) {
    const Pair now = next;
    next = load(prediction, target, weight, at, row + 1, width, height);
    const float difference = now.p - now.t;
    if (at.own && row >= at.first && row < at.last) {
      found[0] = fmaf(now.w, fabsf(difference), found[0]);
      found[1] = fmaf(now.w, difference * difference, found[1]);
      found[3] += at.column % CHANNELS == 0 ? now.w : 0.0f;
    }
    if (!LG_SSIM) continue;
    push(t, now.t);
    push(b, difference);
    push(bb, difference * difference);
    push(squares, fmaf(now.p, now.p, now.t * now.t));
    const int done = row - REACH;  // the row whose windows are complete
    if (done < at.first) continue;
    const float w = at.own ? weight_at(weight, at, done) : 0.0f;  // before the barrier: it may wait
    float4* buffer = windows[row & 1];
    buffer[threadIdx.x] = make_float4(t[0], b[0], bb[0], squares[0]);
    __syncthreads();
    if (!at.own) continue;
    const size_t i = (size_t)done * width + at.column;
    found[2] += similarity_at(buffer + threadIdx.x, i, size, w, maps);
  }
  block_sums(found, sums + SUMS * (size_t)(blockIdx.y * gridDim.x + blockIdx.x));
}
LG_KERNEL(image_loss)

// One block. loss: one number; values: l1, ssim, squared error.
extern "C" __global__ void __launch_bounds__(THREADS)
    image_loss_finish(const float* __restrict__ sums, int blocks, int width, int height,
                      float ssim_weight, float* __restrict__ loss, float* __restrict__ values) {
  __shared__ float total[SUMS];
  float found[SUMS] = {};
  for (int i = threadIdx.x; i < blocks; i += THREADS)
    for (int j = 0; j < SUMS; ++j) found[j] += sums[SUMS * (size_t)i + j];
  block_sums(found, total);
  __syncthreads();
  if (threadIdx.x == 0)
    *loss = lg::finish_loss(total, ssim_weight, (int64_t)width / CHANNELS * height, values);
}
LG_KERNEL(image_loss_finish)

// What the windows of three maps around a number send to it.
__device__ inline float similarity_gradient(const float (&buffer)[3][THREADS], float p, float b) {
  const float first = along_row(buffer[0] + threadIdx.x);
  const float second = along_row(buffer[1] + threadIdx.x);
  const float third = along_row(buffer[2] + threadIdx.x);
  return 2.0f * (first + b * second + p * third);
}

struct Maps {
  float value[3];
};

__device__ inline Maps load_maps(const float* __restrict__ maps, const Place& at, int row,
                                 int width, int height) {
  Maps out = {};
  if (!LG_SSIM || !at.inside || row < 0 || row >= height) return out;
  const size_t i = (size_t)row * width + at.column, size = (size_t)width * height;
#pragma unroll
  for (int j = 0; j < 3; ++j) out.value[j] = maps[j * size + i];
  return out;
}

// gradient: one number, by the loss. out (H, W, 3).
extern "C" __global__ void __launch_bounds__(THREADS, BACKWARD_BLOCKS)
    image_loss_backward(const float* __restrict__ prediction, const float* __restrict__ target,
                        const float* __restrict__ weight, const float* __restrict__ maps,
                        const float* __restrict__ gradient, int width, int height, int rows,
                        float ssim_weight, float* __restrict__ out) {
  __shared__ float windows[2][3][THREADS];
  const Place at = place_of(width, height, rows);
  const float scale = *gradient / ((float)width * (float)height);
  const float l1 = scale * (1.0f - ssim_weight), ssim = -scale * ssim_weight;
  float partial[3][TAPS] = {};
  Maps next = load_maps(maps, at, at.first - BEFORE, width, height);
  for (int row = at.first - BEFORE; row < at.last + BEFORE; ++row) {
    const Maps now = next;
    next = load_maps(maps, at, row + 1, width, height);
    const int done = row - BEFORE;
    Pair pair = {};
    if (at.own && done >= at.first)
      pair = load(prediction, target, weight, at, done, width, height);
    if (LG_SSIM) {
#pragma unroll
      for (int j = 0; j < 3; ++j) push(partial[j], now.value[j]);
      if (done < at.first) continue;
#pragma unroll
      for (int j = 0; j < 3; ++j) windows[row & 1][j][threadIdx.x] = partial[j][0];
      __syncthreads();
    }
    if (!at.own) continue;
    const float difference = pair.p - pair.t;
    float sum = l1 * pair.w * lg::sign(difference);
    if (LG_SSIM) sum += ssim * similarity_gradient(windows[row & 1], pair.p, difference);
    out[(size_t)done * width + at.column] = pair.w > 0.0f ? sum : 0.0f;
  }
}
LG_KERNEL(image_loss_backward)
