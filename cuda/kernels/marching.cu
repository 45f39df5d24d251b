// Marches rays through an occupancy grid into packed samples, without a host sync:
//
//   march_count   one thread a ray walks the grid cell by cell and keeps the ray's runs of
//                 consecutive samples (first candidate, count), RUNS of them, and its total
//   (a running sum of the totals, by torch)
//   march_write   LANES threads a ray turn runs into samples, so that neighbouring threads write
//                 neighbouring samples; the samples stand in the order of the rays
//
// A ray with more than RUNS runs keeps the first RUNS - 1; one lane marches the rest again.
// Memory: bits and coarse as in march.h, read through the caches (a cascade of 128^3 cells is
// 256 KiB of bits and 4 KiB of blocks); runs are [slot][ray], so that a warp writes whole lines.
// Expected: 2^12 to 2^20 rays, 0 to 1024 samples each. Counting is limited by the latency of the
// two dependent look-ups of a cell, writing by memory.
#include "device.h"
#include "march.h"

#ifndef LG_RUNS
#define LG_RUNS 8
#endif
#ifndef LG_LANES
#define LG_LANES 8
#endif

constexpr int RUNS = LG_RUNS;
constexpr int LANES = LG_LANES;
constexpr int HAS_JITTER = 1;
constexpr int HAS_NEAR = 2;
constexpr int HAS_FAR = 4;

// Passed by value; the same order as in marching.py. An input whose bit in `given` is not set may
// be any address.
struct MarchSizes {
  int32_t rays;
  int32_t resolution;
  int32_t cascades;
  int32_t most;          // room for samples
  int32_t most_per_ray;  // samples kept of one ray
  int32_t given;         // HAS_JITTER | HAS_NEAR | HAS_FAR
  int32_t pad;           // fill the room behind the last sample
  float minimum_step;
  float maximum_step;
  float cone;
  float near;  // for all rays where no tensor is given
  float far;
};

__device__ inline lg::MarchParams make_params(const MarchSizes& sizes) {
  return lg::MarchParams(sizes.resolution, sizes.cascades, sizes.minimum_step, sizes.maximum_step,
                         sizes.cone);
}

__device__ inline bool begin(const lg::MarchParams& params, const MarchSizes& sizes,
                             const float* origins, const float* directions, const float* jitter,
                             const float* near, const float* far, int ray, lg::RayState& state) {
  for (int a = 0; a < 3; ++a) {
    state.o[a] = origins[3 * (size_t)ray + a];
    state.d[a] = directions[3 * (size_t)ray + a];
  }
  return lg::ray_begin(params, state, sizes.given & HAS_NEAR ? near[ray] : sizes.near,
                       sizes.given & HAS_FAR ? far[ray] : sizes.far,
                       sizes.given & HAS_JITTER ? jitter[ray] : 0.5f);
}

extern "C" __global__ void march_count(const float* origins, const float* directions,
                                       const float* jitter, const float* near, const float* far,
                                       const uint8_t* bits, const uint8_t* coarse, int2* runs,
                                       int32_t* run_counts, int32_t* counts, MarchSizes sizes) {
  const int ray = blockIdx.x * blockDim.x + threadIdx.x;
  if (ray >= sizes.rays) return;
  const lg::MarchParams params = make_params(sizes);
  lg::RayState state;
  int2 run = make_int2(0, 0);
  int run_count = 0;
  int total = 0;
  if (begin(params, sizes, origins, directions, jitter, near, far, ray, state)) {
    while (total < sizes.most_per_ray) {
      int32_t first = 0;
      int count = lg::ray_next_run(params, bits, coarse, state, &first);
      if (count == 0) break;
      count = lg::minimum(count, sizes.most_per_ray - total);
      total += count;
      if (run.y > 0 && run.x + run.y == first) {
        run.y += count;
        continue;
      }
      if (run.y > 0 && run_count <= RUNS) runs[(size_t)(run_count - 1) * sizes.rays + ray] = run;
      run = make_int2(first, count);
      ++run_count;
    }
  }
  if (run.y > 0 && run_count <= RUNS) runs[(size_t)(run_count - 1) * sizes.rays + ray] = run;
  run_counts[ray] = run_count;
  counts[ray] = total;
}
LG_KERNEL(march_count)

struct SampleArrays {
  float* positions;
  float* distances;
  float* steps;
  int32_t* ray_indices;
};

__device__ inline void write_sample(const SampleArrays& out, int at, float t, float step,
                                    const float* p, int ray) {
  for (int a = 0; a < 3; ++a) out.positions[3 * (size_t)at + a] = p[a];
  out.distances[at] = t;
  out.steps[at] = step;
  out.ray_indices[at] = ray;
}

// What stands behind the last sample: a place inside the grid, no length and no ray.
__device__ inline void write_padding(const SampleArrays& out, int at, int ray) {
  const float centre[3] = {0.5f, 0.5f, 0.5f};
  write_sample(out, at, 0.0f, 0.0f, centre, ray);
}

// The rays that fit are the first ones: sums never fall. Number of sums that are at most `most`.
__device__ inline int fitting_rays(const int32_t* sums, int rays, int most) {
  if (sums[rays - 1] <= most) return rays;
  int low = 0;
  int high = rays - 1;  // sums[high] > most
  while (low < high) {
    const int middle = (low + high) / 2;
    if (sums[middle] > most) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// `sums` are the running sums of `counts`, each with its own ray.
extern "C" __global__ void march_write(const float* origins, const float* directions,
                                       const float* jitter, const float* near, const float* far,
                                       const uint8_t* bits, const uint8_t* coarse,
                                       const int2* runs, const int32_t* run_counts,
                                       const int32_t* counts, const int32_t* sums,
                                       float* positions, float* distances, float* steps,
                                       int32_t* ray_indices, int2* ray_offsets, int32_t* counter,
                                       MarchSizes sizes) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const int threads = gridDim.x * blockDim.x;
  const int lane = thread % LANES;
  const SampleArrays out = {positions, distances, steps, ray_indices};
  const lg::MarchParams params = make_params(sizes);
  const int fitting = fitting_rays(sums, sizes.rays, sizes.most);
  const int kept = fitting > 0 ? sums[fitting - 1] : 0;

  if (thread == 0) {
    counter[0] = kept;
    counter[1] = sums[sizes.rays - 1];
    counter[2] = fitting;
  }
  if (sizes.pad) {
    for (int at = kept + thread; at < sizes.most; at += threads) write_padding(out, at, -1);
  }
  const int ray = thread / LANES;
  if (ray >= sizes.rays) return;
  const int count = ray < fitting ? counts[ray] : 0;
  const int start = ray < fitting ? sums[ray] - counts[ray] : kept;
  if (lane == 0) ray_offsets[ray] = make_int2(start, count);
  if (count == 0) return;

  lg::RayState state;
  begin(params, sizes, origins, directions, jitter, near, far, ray, state);
  const int run_count = run_counts[ray];
  const int stored = run_count <= RUNS ? run_count : RUNS - 1;
  int at = start;
  for (int r = 0; r < stored; ++r) {
    const int2 run = runs[(size_t)r * sizes.rays + ray];
    for (int i = lane; i < run.y; i += LANES) {
      const float t = lg::lattice_distance(params, state, run.x + i);
      float p[3];
      lg::ray_point(state, t, p);
      write_sample(out, at + i, t, lg::step_length(params, t), p, ray);
    }
    at += run.y;
  }
  if (stored == run_count || lane != 0) return;

  lg::ray_seek(params, state, runs[(size_t)(RUNS - 1) * sizes.rays + ray].x);
  const int end = start + count;
  for (; at < end; ++at) {
    float t = 0.0f;
    float step = 0.0f;
    float p[3];
    if (!lg::ray_next(params, bits, coarse, state, &t, &step, p)) break;
    write_sample(out, at, t, step, p, ray);
  }
  // Only if both kernels were compiled to round differently is anything left to write.
  for (; at < end; ++at) write_padding(out, at, ray);
}
LG_KERNEL(march_write)
