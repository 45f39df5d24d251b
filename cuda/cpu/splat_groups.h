// What the projections of Gaussians on the CPU share: groups of fixed size, so that results do not
// depend on the number of threads, and constants of run time as template arguments.
#pragma once
#include <algorithm>
#include <vector>

#include "splat.h"

namespace lg {

constexpr int64_t GROUP = 1024;

// each(i) for every Gaussian
template <class Each>
void for_gaussians(int64_t count, Each each) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t first = 0; first < count; first += GROUP)
    for (int64_t i = first; i < std::min(first + GROUP, count); ++i) each(i);
}

// each(i) for every Gaussian returns its gradient, whose part by the pose (3, 4) is summed up in
// double, group by group in their order; d_pose may be null.
template <class Each>
void for_gradients(int64_t count, float* d_pose, Each each) {
  const int64_t groups = (count + GROUP - 1) / GROUP;
  std::vector<double> pose_sums(d_pose ? 12 * groups : 0);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t group = 0; group < groups; ++group) {
    double sums[12] = {};
    for (int64_t i = group * GROUP; i < std::min((group + 1) * GROUP, count); ++i) {
      const AxesGradient d = each(i);
      for (int j = 0; j < 12; ++j) sums[j] += j % 4 == 3 ? d.pose_t[j / 4] : d.pose_r[3 * (j / 4) + j % 4];
    }
    if (d_pose) std::copy_n(sums, 12, pose_sums.data() + 12 * group);
  }
  if (!d_pose) return;
  for (int j = 0; j < 12; ++j) {
    double sum = 0.0;
    for (int64_t group = 0; group < groups; ++group) sum += pose_sums[12 * group + j];
    d_pose[j] = (float)sum;
  }
}

// Copies the `used` harmonics in use of `stored` ones, to be overwritten by their gradient, and
// zeros behind them.
inline void copy_harmonics(const float* from, int used, int stored, float* to) {
  std::copy_n(from, used, to);
  std::fill(to + used, to + stored, 0.0f);
}

template <int MODEL, class F>
void with_bands(int bands, F f) {
  if (bands == 1) f.template run<MODEL, 1>();
  if (bands == 2) f.template run<MODEL, 2>();
  if (bands == 3) f.template run<MODEL, 3>();
  if (bands == 4) f.template run<MODEL, 4>();
}

// Calls f.run<MODEL, BANDS>() for run-time values.
template <class F>
void with_constants(int model, int bands, F f) {
  if (model == PINHOLE) with_bands<PINHOLE>(bands, f);
  if (model == OPENCV) with_bands<OPENCV>(bands, f);
  if (model == FISHEYE) with_bands<FISHEYE>(bands, f);
  if (model == ORTHOGRAPHIC) with_bands<ORTHOGRAPHIC>(bands, f);
}

}  // namespace lg
