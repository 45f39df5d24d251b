// Gaussians to splats, and the gradients back. One thread = one Gaussian; the maths and the row of a
// splat are in common/splat.h.
//
// Memory: 11 + 3 LG_ROWS floats of a Gaussian in, 13 out; backward 12 more in and the same numbers
// out. Culled Gaussians read no harmonics. Limited by memory (forward 59 floats at degree 3).
// LG_MODEL: camera model. LG_RAW: log scales and logits. LG_BANDS: harmonics bands in use (1 to 4),
// LG_ROWS: harmonics stored. LG_POSE: gradient by the pose, too. LG_MOMENTS: the gradient by splats
// comes as the sums of splat_raster_backward, and that by screen positions goes out.
#include "device.h"
#include "splat.h"
#include "splat_moments.h"

#ifndef LG_MODEL
#define LG_MODEL 0
#endif
#ifndef LG_RAW
#define LG_RAW 1
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
#ifndef LG_MOMENTS
#define LG_MOMENTS 0
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

__device__ inline lg::GaussianShape load_shape(const float4* __restrict__ rotations,
                                               const float* __restrict__ scales,
                                               const float* __restrict__ opacities, int i) {
  const float4 q = rotations[i];
  const float rotation[4] = {q.x, q.y, q.z, q.w};
  return lg::activate<LG_RAW != 0>(rotation, scales + 3 * (size_t)i, opacities[i]);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_project(const float* __restrict__ means, const float4* __restrict__ rotations,
                  const float* __restrict__ scales, const float* __restrict__ opacities,
                  const float* __restrict__ harmonics, const float* __restrict__ world_to_camera,
                  const __grid_constant__ lg::SplatCamera camera, int antialiased, int count,
                  float4* __restrict__ splats, float* __restrict__ depths) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= count) return;
  const lg::SplatPose pose = lg::load_pose(world_to_camera);
  const float mean[3] = {means[3 * (size_t)i], means[3 * (size_t)i + 1], means[3 * (size_t)i + 2]};
  const lg::GaussianShape g = load_shape(rotations, scales, opacities, i);
  lg::SplatView v = lg::view_gaussian<LG_MODEL>(camera, pose, mean, g, antialiased != 0);
  float values[USED], row[lg::SPLAT_ROW];
  // harmonics are most of the bytes: not read for what cannot be seen
  if (v.ok) {
    const float most = lg::largest_sigma(g.opacity * v.compensation);
    const float wide = sqrtf(2.0f * most * (v.shape.xx + camera.blur));
    const float high = sqrtf(2.0f * most * (v.shape.yy + camera.blur));
    v.ok = most > 0.0f && v.shape.u + wide > 0.0f && v.shape.u - wide < camera.width &&
           v.shape.v + high > 0.0f && v.shape.v - high < camera.height;
  }
  if (v.ok) load_harmonics(harmonics, i, values);
  depths[i] = lg::write_splat<LG_MODEL, LG_BANDS>(camera, v, g.opacity, values, row);
#pragma unroll
  for (int j = 0; j < 3; ++j)
    splats[3 * (size_t)i + j] =
        make_float4(row[4 * j], row[4 * j + 1], row[4 * j + 2], row[4 * j + 3]);
}
LG_KERNEL(splat_project)

// Sums of the block's pose gradients, one atomic a number and block.
__device__ inline void add_pose(const lg::GaussianGradient& d, float* __restrict__ d_pose) {
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

// Writes every gradient, zeros for culled Gaussians; d_pose (3, 4) is added to.
extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_project_backward(const float* __restrict__ means, const float4* __restrict__ rotations,
                           const float* __restrict__ scales, const float* __restrict__ opacities,
                           const float* __restrict__ harmonics,
                           const float* __restrict__ world_to_camera,
                           const __grid_constant__ lg::SplatCamera camera, int antialiased,
                           int count, const float4* __restrict__ splats,
                           const float4* __restrict__ d_splats, float* __restrict__ d_means,
                           float4* __restrict__ d_rotations, float* __restrict__ d_scales,
                           float* __restrict__ d_opacities, float* __restrict__ d_harmonics,
                           float* __restrict__ d_pose, float2* __restrict__ d_screen,
                           int screen) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  lg::GaussianGradient d;
  for (int j = 0; j < 3; ++j) d.mean[j] = d.scale[j] = d.pose_t[j] = 0.0f;
  for (int j = 0; j < 4; ++j) d.q[j] = 0.0f;
  for (int j = 0; j < 9; ++j) d.pose_r[j] = 0.0f;
  d.opacity = 0.0f;
  float2 on_screen = make_float2(0.0f, 0.0f);
  __shared__ float staged[BLOCK * STAGED];
  __shared__ bool visible[BLOCK];
  float* values = staged + STAGED * threadIdx.x;
  const bool seen = i < count && splats[3 * (size_t)i + 1].y > 0.0f;
  visible[threadIdx.x] = seen;
  __syncthreads();
  stage_harmonics(harmonics, visible, count, staged);
  __syncthreads();
  for (int j = seen ? USED : 0; j < STORED; ++j) values[j] = 0.0f;
  if (seen) {
    const lg::SplatPose pose = lg::load_pose(world_to_camera);
    const float mean[3] = {means[3 * (size_t)i], means[3 * (size_t)i + 1],
                           means[3 * (size_t)i + 2]};
    const lg::GaussianShape g = load_shape(rotations, scales, opacities, i);
    const lg::SplatView v = lg::view_gaussian<LG_MODEL>(camera, pose, mean, g, antialiased != 0);
    float row[lg::SPLAT_ROW], d_row[lg::SPLAT_ROW];
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      const float4 s = splats[3 * (size_t)i + j];
      row[4 * j] = s.x, row[4 * j + 1] = s.y, row[4 * j + 2] = s.z, row[4 * j + 3] = s.w;
    }
    float4 e[3] = {d_splats[3 * (size_t)i], d_splats[3 * (size_t)i + 1],
                   d_splats[3 * (size_t)i + 2]};
    if (LG_MOMENTS) {
      on_screen = make_float2(e[2].z, e[2].w);  // absolute sums
      finish_moments(row, e);
      if (screen == PLAIN_SCREEN) on_screen = make_float2(e[0].x, e[0].y);
    }
#pragma unroll
    for (int j = 0; j < 3; ++j)
      d_row[4 * j] = e[j].x, d_row[4 * j + 1] = e[j].y, d_row[4 * j + 2] = e[j].z,
                d_row[4 * j + 3] = e[j].w;
    lg::splat_gradient<LG_MODEL, LG_RAW != 0, LG_BANDS, LG_POSE != 0>(
        camera, pose, mean, g, v, antialiased != 0, row, d_row, values, d);
  }
  if (LG_POSE) add_pose(d, d_pose);
  __syncthreads();
  unstage_harmonics(staged, count, d_harmonics);
  if (i >= count) return;
  if (LG_MOMENTS && screen) d_screen[i] = on_screen;
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    d_means[3 * (size_t)i + j] = d.mean[j];
    d_scales[3 * (size_t)i + j] = d.scale[j];
  }
  d_rotations[i] = make_float4(d.q[0], d.q[1], d.q[2], d.q[3]);
  d_opacities[i] = d.opacity;
}
LG_KERNEL(splat_project_backward)
