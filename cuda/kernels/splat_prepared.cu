// Prepared Gaussians in space and time to the splats of one moment. One thread = one row that may be
// there: the first `always` rows, and those of a list.
//
// Memory: planes of float4 (PLANES, total), of which what has faded reads one, and LG_WIDTH halves of
// harmonics, which what cannot be seen does not read: 80 + 96 bytes in at degree 3, 52 out. Limited by
// memory. LG_MODEL: camera model. LG_BANDS: harmonics bands in use (1 to 4). LG_WIDTH: numbers in a
// row of harmonics, a multiple of 8.
#include "gaussian4d.h"
#include "splat_rows.h"

#ifndef LG_WIDTH
#define LG_WIDTH 48
#endif

__device__ inline void load_halves(const uint4* __restrict__ harmonics, size_t row,
                                   float (&values)[USED]) {
  const uint4* from = harmonics + LG_WIDTH / 8 * row;
#pragma unroll
  for (int j = 0; j < (USED + 7) / 8; ++j) {
    const uint4 eight = from[j];
    const uint32_t words[4] = {eight.x, eight.y, eight.z, eight.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 pair = unpack_half2(words[k]);
      if (8 * j + 2 * k < USED) values[8 * j + 2 * k] = pair.x;
      if (8 * j + 2 * k + 1 < USED) values[8 * j + 2 * k + 1] = pair.y;
    }
  }
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_prepared(const float4* __restrict__ planes, const uint4* __restrict__ harmonics,
                   const int* __restrict__ listed, const float* __restrict__ world_to_camera,
                   const __grid_constant__ lg::SplatCamera camera, float time, int antialiased,
                   int always, int count, int total, float4* __restrict__ splats,
                   float* __restrict__ depths) {
  const int i = blockIdx.x * BLOCK + threadIdx.x;
  if (i >= count) return;
  const size_t row = i < always ? i : listed[i - always];
  lg::PreparedSlice g;
  if (!lg::prepared_gaussian(time, [&](int k) { return planes[(size_t)k * total + row]; }, g)) {
    hide_splat(splats + 3 * (size_t)i, depths + i);
    return;
  }
  const lg::SplatPose pose = lg::load_pose(world_to_camera);
  depths[i] = project_row(
      camera, pose, g.mean, g.axes, g.opacity, antialiased != 0,
      [&](float (&values)[USED]) { load_halves(harmonics, row, values); }, splats + 3 * (size_t)i);
}
LG_KERNEL(splat_prepared)
