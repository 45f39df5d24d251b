// Gaussians in space and time to the splats of one moment, and the gradients back. One thread = one
// Gaussian; the maths is in common/gaussian4d.h, the row of a splat in common/splat.h.
//
// Memory: 17 + 3 LG_ROWS floats of a Gaussian in (one more with LG_PLATEAUS), 13 out; backward 12
// more in and the same numbers out. What has faded reads 14 of them and what cannot be seen no
// harmonics. Forward is limited by memory, backward by the registers of a slice (some 60 floats).
// LG_MODEL: camera model. LG_BANDS: harmonics bands in use (1 to 4), LG_ROWS: harmonics stored.
// LG_POSE: gradient by the pose, too.
#include "gaussian4d.h"
#include "splat_rows.h"

#ifndef LG_PLATEAUS
#define LG_PLATEAUS 1
#endif

__device__ inline lg::TimeSlice load_slice(
    const float* __restrict__ means, const float* __restrict__ times,
    const float4* __restrict__ rotors, const float4* __restrict__ log_scales,
    const float* __restrict__ logits, const float* __restrict__ log_plateaus,
    const lg::Moment& moment, int i) {
  const float4 low = rotors[2 * (size_t)i], high = rotors[2 * (size_t)i + 1], s = log_scales[i];
  const float rotor[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
  const float scale[4] = {s.x, s.y, s.z, s.w};
  return lg::slice_gaussian(means + 3 * (size_t)i, times[i], rotor, scale, logits[i],
                            LG_PLATEAUS ? log_plateaus + i : nullptr, moment);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_project4d(const float* __restrict__ means, const float* __restrict__ times,
                    const float4* __restrict__ rotors, const float4* __restrict__ log_scales,
                    const float* __restrict__ logits, const float* __restrict__ harmonics,
                    const float* __restrict__ log_plateaus,
                    const float* __restrict__ world_to_camera,
                    const __grid_constant__ lg::SplatCamera camera,
                    const __grid_constant__ lg::Moment moment, int antialiased, int count,
                    float4* __restrict__ splats, float* __restrict__ depths) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= count) return;
  const lg::TimeSlice g =
      load_slice(means, times, rotors, log_scales, logits, log_plateaus, moment, i);
  if (!g.ok) {
    hide_splat(splats + 3 * (size_t)i, depths + i);
    return;
  }
  const lg::SplatPose pose = lg::load_pose(world_to_camera);
  depths[i] = project_row(
      camera, pose, g.mean, g.axes, g.opacity, antialiased != 0,
      [&](float (&values)[USED]) { load_harmonics(harmonics, i, values); }, splats + 3 * (size_t)i);
}
LG_KERNEL(splat_project4d)

// Writes every gradient, zeros for culled Gaussians; d_pose (3, 4) is added to.
extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_project4d_backward(
        const float* __restrict__ means, const float* __restrict__ times,
        const float4* __restrict__ rotors, const float4* __restrict__ log_scales,
        const float* __restrict__ logits, const float* __restrict__ harmonics,
        const float* __restrict__ log_plateaus, const float* __restrict__ world_to_camera,
        const __grid_constant__ lg::SplatCamera camera,
        const __grid_constant__ lg::Moment moment, int antialiased, int count,
        const float4* __restrict__ splats, const float4* __restrict__ d_splats,
        float* __restrict__ d_means, float* __restrict__ d_times, float4* __restrict__ d_rotors,
        float4* __restrict__ d_log_scales, float* __restrict__ d_logits,
        float* __restrict__ d_harmonics, float* __restrict__ d_log_plateaus,
        float* __restrict__ d_pose) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  lg::TimeGradient d;
  for (int j = 0; j < 3; ++j) d.mean[j] = d.pose_t[j] = 0.0f;
  for (int j = 0; j < 4; ++j) d.scale[j] = 0.0f;
  for (int j = 0; j < 8; ++j) d.rotor[j] = 0.0f;
  for (int j = 0; j < 9; ++j) d.pose_r[j] = 0.0f;
  d.opacity = d.time = d.plateau = 0.0f;
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
    const lg::TimeSlice g =
        load_slice(means, times, rotors, log_scales, logits, log_plateaus, moment, i);
    const lg::SplatView v =
        lg::view_axes<LG_MODEL>(camera, pose, g.mean, g.axes, antialiased != 0);
    float row[lg::SPLAT_ROW], d_row[lg::SPLAT_ROW];
    load_row(splats, i, row);
    load_row(d_splats, i, d_row);
    lg::splat_gradient<LG_MODEL, LG_BANDS, LG_POSE != 0>(
        camera, pose, g.mean, g.axes, g.opacity, v, antialiased != 0, row, d_row, values, d);
    lg::slice_gradient(g, moment, d);
  }
  if (LG_POSE) add_pose(d, d_pose);
  __syncthreads();
  unstage_harmonics(staged, count, d_harmonics);
  if (i >= count) return;
#pragma unroll
  for (int j = 0; j < 3; ++j) d_means[3 * (size_t)i + j] = d.mean[j];
  d_times[i] = d.time;
  d_rotors[2 * (size_t)i] = make_float4(d.rotor[0], d.rotor[1], d.rotor[2], d.rotor[3]);
  d_rotors[2 * (size_t)i + 1] = make_float4(d.rotor[4], d.rotor[5], d.rotor[6], d.rotor[7]);
  d_log_scales[i] = make_float4(d.scale[0], d.scale[1], d.scale[2], d.scale[3]);
  d_logits[i] = d.opacity;
  if (LG_PLATEAUS) d_log_plateaus[i] = d.plateau;
}
LG_KERNEL(splat_project4d_backward)
