// Marches rays through an occupancy grid in two passes: find every ray's runs of consecutive
// samples, sum the counts, write the samples. The order of samples is that of the rays, for any
// number of threads.
#include "march.h"

#include <algorithm>
#include <vector>

namespace {

struct Run {
  int32_t first;  // candidate number on the lattice of the ray
  int32_t count;
};

// What a call is given; optional arrays are null.
struct Rays {
  const float* origins;     // (N, 3)
  const float* directions;  // (N, 3)
  const float* jitter;      // (N,) or null: 0.5
  const float* near;        // (N,) or null: 0
  const float* far;         // (N,) or null: no end
};

struct Samples {
  float* positions;      // (M, 3)
  float* distances;      // (M,)
  float* steps;          // (M,)
  int32_t* ray_indices;  // (M,)
  int32_t* ray_offsets;  // (N, 2) start, count
};

bool begin(const lg::MarchParams& params, const Rays& rays, int64_t ray, lg::RayState& state) {
  for (int a = 0; a < 3; ++a) {
    state.o[a] = rays.origins[3 * ray + a];
    state.d[a] = rays.directions[3 * ray + a];
  }
  const float near = rays.near ? rays.near[ray] : 0.0f;
  const float far = rays.far ? rays.far[ray] : lg::FARTHEST_START;
  const float jitter = rays.jitter ? rays.jitter[ray] : 0.5f;
  return lg::ray_begin(params, state, near, far, jitter);
}

// Appends the runs of one ray and returns its number of samples, at most `most`.
int32_t find_runs(const lg::MarchParams& params, const uint8_t* bits, const uint8_t* coarse,
                  lg::RayState& state, int32_t most, std::vector<Run>& runs) {
  const size_t start = runs.size();
  int32_t total = 0;
  int32_t first = 0;
  while (total < most) {
    int32_t count = lg::ray_next_run(params, bits, coarse, state, &first);
    if (count == 0) break;
    count = std::min(count, most - total);
    total += count;
    const bool continues =
        runs.size() > start && runs.back().first + runs.back().count == first;
    if (continues) {
      runs.back().count += count;
    } else {
      runs.push_back({first, count});
    }
  }
  return total;
}

void write_run(const lg::MarchParams& params, const lg::RayState& state, Run run, int32_t ray,
               int64_t at, const Samples& out) {
  for (int32_t i = 0; i < run.count; ++i, ++at) {
    const float t = lg::lattice_distance(params, state, run.first + i);
    lg::ray_point(state, t, out.positions + 3 * at);
    out.distances[at] = t;
    out.steps[at] = lg::step_length(params, t);
    out.ray_indices[at] = ray;
  }
}

// Sums counts to starts. The first ray that does not fit, and all behind it, lose their samples.
void place_rays(int32_t* offsets, int64_t rays, int64_t most, int32_t* counter) {
  int64_t wanted = 0;
  int64_t kept = 0;
  int64_t fitting = 0;
  for (int64_t ray = 0; ray < rays; ++ray) {
    const int32_t count = offsets[2 * ray + 1];
    wanted += count;
    const bool fits = wanted <= most;
    offsets[2 * ray] = (int32_t)kept;
    if (fits) {
      kept = wanted;
      ++fitting;
    } else {
      offsets[2 * ray + 1] = 0;
    }
  }
  counter[0] = (int32_t)kept;
  counter[1] = (int32_t)wanted;
  counter[2] = (int32_t)fitting;
}

}  // namespace

// params: the five numbers of MarchParams. Only the first counter[0] samples are written.
LG_EXPORT void lg_march_rays(const float* origins, const float* directions, const float* jitter,
                             const float* near, const float* far, const uint8_t* bits,
                             const uint8_t* coarse, const int64_t* sizes, const float* lengths,
                             float* positions, float* distances, float* steps,
                             int32_t* ray_indices, int32_t* ray_offsets, int32_t* counter) {
  constexpr int64_t CHUNK = 256;  // rays
  const int64_t rays = sizes[0];
  const int64_t most = sizes[3];
  const int32_t most_per_ray = (int32_t)sizes[4];
  const lg::MarchParams params((int32_t)sizes[1], (int32_t)sizes[2], lengths[0], lengths[1],
                               lengths[2]);
  const Rays input{origins, directions, jitter, near, far};
  const Samples out{positions, distances, steps, ray_indices, ray_offsets};
  const int64_t chunks = (rays + CHUNK - 1) / CHUNK;
  std::vector<std::vector<Run>> runs(chunks);
  std::vector<std::vector<int32_t>> run_counts(chunks);

#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    for (int64_t ray = chunk * CHUNK; ray < std::min(rays, (chunk + 1) * CHUNK); ++ray) {
      lg::RayState state;
      const size_t before = runs[chunk].size();
      const bool hits = begin(params, input, ray, state);
      ray_offsets[2 * ray + 1] =
          hits ? find_runs(params, bits, coarse, state, most_per_ray, runs[chunk]) : 0;
      run_counts[chunk].push_back((int32_t)(runs[chunk].size() - before));
    }
  }
  place_rays(ray_offsets, rays, most, counter);

#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const Run* run = runs[chunk].data();
    for (int64_t ray = chunk * CHUNK; ray < std::min(rays, (chunk + 1) * CHUNK); ++ray) {
      const int32_t run_count = run_counts[chunk][ray - chunk * CHUNK];
      if (run_count && ray_offsets[2 * ray + 1]) {
        lg::RayState state;
        begin(params, input, ray, state);
        int64_t at = ray_offsets[2 * ray];
        for (int32_t i = 0; i < run_count; at += run[i].count, ++i) {
          write_run(params, state, run[i], (int32_t)ray, at, out);
        }
      }
      run += run_count;
    }
  }
}
