// What the kernels of projection share: rows of harmonics in and out, splats, and the sum of pose
// gradients. BLOCK threads, one a Gaussian; LG_BANDS harmonics bands are in use, LG_ROWS stored.
#pragma once
#include "device.h"
#include "splat.h"
#include "splat_moments.h"

#ifndef LG_MODEL
#define LG_MODEL 0
#endif
#ifndef LG_BANDS
#define LG_BANDS 4
#endif
#ifndef LG_ROWS
#define LG_ROWS 16
#endif
#ifndef LG_POSE
#define LG_POSE 0
#endif

constexpr int BLOCK = 128;
constexpr int STORED = 3 * LG_ROWS, USED = 3 * LG_BANDS * LG_BANDS;
constexpr bool VECTORS = STORED % 4 == 0;  // rows of whole float4, 16-byte aligned

__device__ inline void load_harmonics(const float* __restrict__ harmonics, int i,
                                      float (&values)[USED]) {
  const float* from = harmonics + STORED * (size_t)i;
  if (VECTORS) {
#pragma unroll
    for (int j = 0; j < USED / 4; ++j) {
      const float4 four = ((const float4*)from)[j];
      values[4 * j] = four.x;
      values[4 * j + 1] = four.y;
      values[4 * j + 2] = four.z;
      values[4 * j + 3] = four.w;
    }
#pragma unroll
    for (int j = USED / 4 * 4; j < USED; ++j) values[j] = from[j];
  } else {
#pragma unroll
    for (int j = 0; j < USED; ++j) values[j] = from[j];
  }
}

// Backward reads and writes harmonics through shared memory, so that neighbours touch neighbours: a
// row a thread would spread each access of a warp over 32 rows. Rows are padded to odd lengths, which
// meet every bank once.
constexpr int STAGED = STORED % 2 ? STORED : STORED + 1;

template <class Each>
__device__ inline void for_block_harmonics(int count, Each each) {
  const int first = blockIdx.x * BLOCK, rows = lg::minimum(BLOCK, count - first);
  for (int k = threadIdx.x; k < rows * (VECTORS ? STORED / 4 : STORED); k += BLOCK) {
    const int row = k / (VECTORS ? STORED / 4 : STORED), place = k % (VECTORS ? STORED / 4 : STORED);
    each(first, row, place);
  }
}

__device__ inline void stage_harmonics(const float* __restrict__ harmonics,
                                       const bool* __restrict__ visible, int count,
                                       float* __restrict__ staged) {
  for_block_harmonics(count, [&](int first, int row, int place) {
    float* to = staged + STAGED * row;
    if (!visible[row]) return;
    if (VECTORS) {
      const float4 four = ((const float4*)harmonics)[STORED / 4 * (size_t)(first + row) + place];
      to[4 * place] = four.x, to[4 * place + 1] = four.y, to[4 * place + 2] = four.z,
              to[4 * place + 3] = four.w;
    } else {
      to[place] = harmonics[STORED * (size_t)(first + row) + place];
    }
  });
}

__device__ inline void unstage_harmonics(const float* __restrict__ staged, int count,
                                         float* __restrict__ gradient) {
  for_block_harmonics(count, [&](int first, int row, int place) {
    const float* from = staged + STAGED * row;
    if (VECTORS)
      ((float4*)gradient)[STORED / 4 * (size_t)(first + row) + place] = make_float4(
          from[4 * place], from[4 * place + 1], from[4 * place + 2], from[4 * place + 3]);
    else
      gradient[STORED * (size_t)(first + row) + place] = from[place];
  });
}

__device__ inline void hide_splat(float4* __restrict__ splat, float* __restrict__ depth) {
  for (int j = 0; j < 3; ++j) splat[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  *depth = lg::float_from_bits(0x7f800000u);
}

// Writes the splat of one Gaussian and returns its depth. Harmonics are most of the bytes: `load` is
// called for what can be seen alone.
template <class Load>
__device__ inline float project_row(const lg::SplatCamera& camera, const lg::SplatPose& pose,
                                    const float* mean, const float* axes, float opacity,
                                    bool antialiased, Load load, float4* __restrict__ splat) {
  lg::SplatView v = lg::view_axes<LG_MODEL>(camera, pose, mean, axes, antialiased);
  float values[USED], row[lg::SPLAT_ROW], wide, high;
  v.ok = v.ok && lg::reaches_image(camera, v, opacity * v.compensation, wide, high);
  if (v.ok) load(values);
  const float depth = lg::write_splat<LG_MODEL, LG_BANDS>(camera, v, opacity, values, row);
#pragma unroll
  for (int j = 0; j < 3; ++j)
    splat[j] = make_float4(row[4 * j], row[4 * j + 1], row[4 * j + 2], row[4 * j + 3]);
  return depth;
}

__device__ inline void load_row(const float4* __restrict__ rows, int i,
                                float (&row)[lg::SPLAT_ROW]) {
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    const float4 s = rows[3 * (size_t)i + j];
    row[4 * j] = s.x, row[4 * j + 1] = s.y, row[4 * j + 2] = s.z, row[4 * j + 3] = s.w;
  }
}

// Sums of the block's pose gradients, one atomic a number and block.
__device__ inline void add_pose(const lg::AxesGradient& d, float* __restrict__ d_pose) {
  __shared__ float sums[BLOCK / 32][12];
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  for (int j = 0; j < 12; ++j) {
    float value = j % 4 == 3 ? d.pose_t[j / 4] : d.pose_r[3 * (j / 4) + j % 4];
    for (int step = 16; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    if (lane == 0) sums[warp][j] = value;
  }
  __syncthreads();
  if (threadIdx.x < 12) {
    float sum = 0.0f;
    for (int n = 0; n < BLOCK / 32; ++n) sum += sums[n][threadIdx.x];
    red_float(d_pose + threadIdx.x, sum);
  }
}
