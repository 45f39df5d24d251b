// Gaussians to splats, and the gradients back. One thread = one Gaussian; the maths and the row of a
// splat are in common/splat.h.
//
// Memory: 11 + 3 LG_ROWS floats of a Gaussian in, 13 out; backward 12 more in and the same numbers
// out. Culled Gaussians read no harmonics. Limited by memory (forward 59 floats at degree 3).
// LG_MODEL: camera model. LG_RAW: log scales and logits. LG_BANDS: harmonics bands in use (1 to 4),
// LG_ROWS: harmonics stored. LG_POSE: gradient by the pose, too. LG_MOMENTS: the gradient by splats
// comes as the sums of splat_raster_backward, and that by screen positions goes out.
#include "gaussian.h"
#include "splat_rows.h"

#ifndef LG_RAW
#define LG_RAW 1
#endif
#ifndef LG_MOMENTS
#define LG_MOMENTS 0
#endif

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
  float axes[9];
  lg::gaussian_axes(g, axes);
  depths[i] = project_row(
      camera, pose, mean, axes, g.opacity, antialiased != 0,
      [&](float (&values)[USED]) { load_harmonics(harmonics, i, values); }, splats + 3 * (size_t)i);
}
LG_KERNEL(splat_project)

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
    float axes[9], row[lg::SPLAT_ROW], d_row[lg::SPLAT_ROW];
    lg::gaussian_axes(g, axes);
    const lg::SplatView v = lg::view_axes<LG_MODEL>(camera, pose, mean, axes, antialiased != 0);
    load_row(splats, i, row);
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
    lg::splat_gradient<LG_MODEL, LG_BANDS, LG_POSE != 0>(
        camera, pose, mean, axes, g.opacity, v, antialiased != 0, row, d_row, values, d);
    lg::gaussian_gradient<LG_RAW != 0>(g, d);
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
