// Gaussians to splats on the CPU, and the gradients back; the maths is in ../common/splat.h.
//
// Gaussians are independent; the sum of pose gradients is formed in blocks of fixed size and added
// up in their order, so that it does not depend on the number of threads.
#include <algorithm>
#include <vector>

#include "splat.h"

using namespace lg;

namespace {

constexpr int64_t GROUP = 1024;

struct Inputs {
  const float *means, *rotations, *scales, *opacities, *harmonics;
  int64_t count;
  int rows;  // harmonics stored
};

struct Outputs {
  float *means, *rotations, *scales, *opacities, *harmonics;
};

template <int MODEL, bool RAW, int BANDS>
void project(const Inputs& in, const SplatCamera& camera, const SplatPose& pose, bool antialiased,
             float* splats, float* depths) {
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t first = 0; first < in.count; first += GROUP) {
    const int64_t last = std::min(first + GROUP, in.count);
    for (int64_t i = first; i < last; ++i) {
      const GaussianShape g =
          activate<RAW>(in.rotations + 4 * i, in.scales + 3 * i, in.opacities[i]);
      const SplatView v = view_gaussian<MODEL>(camera, pose, in.means + 3 * i, g, antialiased);
      depths[i] = write_splat<MODEL, BANDS>(camera, v, g.opacity, in.harmonics + 3 * in.rows * i,
                                            splats + SPLAT_ROW * i);
    }
  }
}

template <int MODEL, bool RAW, int BANDS>
void project_backward(const Inputs& in, const SplatCamera& camera, const SplatPose& pose,
                      bool antialiased, const float* splats, const float* d_splats,
                      const Outputs& out, float* d_pose) {
  const int64_t groups = (in.count + GROUP - 1) / GROUP;
  std::vector<double> pose_sums(d_pose ? 12 * groups : 0);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t group = 0; group < groups; ++group) {
    double sums[12] = {};
    const int64_t last = std::min((group + 1) * GROUP, in.count);
    for (int64_t i = group * GROUP; i < last; ++i) {
      const int stored = 3 * in.rows;
      float* d_harmonics = out.harmonics + stored * i;
      GaussianGradient d{};
      if (splats[SPLAT_ROW * i + 5] > 0.0f) {
        const GaussianShape g =
            activate<RAW>(in.rotations + 4 * i, in.scales + 3 * i, in.opacities[i]);
        const SplatView v = view_gaussian<MODEL>(camera, pose, in.means + 3 * i, g, antialiased);
        std::copy_n(in.harmonics + stored * i, 3 * BANDS * BANDS, d_harmonics);
        std::fill(d_harmonics + 3 * BANDS * BANDS, d_harmonics + stored, 0.0f);
        splat_gradient<MODEL, RAW, BANDS, true>(camera, pose, in.means + 3 * i, g, v, antialiased,
                                                splats + SPLAT_ROW * i, d_splats + SPLAT_ROW * i,
                                                d_harmonics, d);
        for (int j = 0; j < 12; ++j) sums[j] += j % 4 == 3 ? d.pose_t[j / 4] : d.pose_r[3 * (j / 4) + j % 4];
      } else {
        std::fill_n(d_harmonics, stored, 0.0f);
      }
      std::copy_n(d.mean, 3, out.means + 3 * i);
      std::copy_n(d.q, 4, out.rotations + 4 * i);
      std::copy_n(d.scale, 3, out.scales + 3 * i);
      out.opacities[i] = d.opacity;
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

// Calls f<MODEL, RAW, BANDS>() for run-time values.
template <int MODEL, bool RAW, class F>
void with_bands(int bands, F f) {
  if (bands == 1) f.template run<MODEL, RAW, 1>();
  if (bands == 2) f.template run<MODEL, RAW, 2>();
  if (bands == 3) f.template run<MODEL, RAW, 3>();
  if (bands == 4) f.template run<MODEL, RAW, 4>();
}

template <class F>
void with_constants(int model, bool raw, int bands, F f) {
  if (model == PINHOLE) raw ? with_bands<PINHOLE, true>(bands, f) : with_bands<PINHOLE, false>(bands, f);
  if (model == OPENCV) raw ? with_bands<OPENCV, true>(bands, f) : with_bands<OPENCV, false>(bands, f);
  if (model == FISHEYE) raw ? with_bands<FISHEYE, true>(bands, f) : with_bands<FISHEYE, false>(bands, f);
  if (model == ORTHOGRAPHIC)
    raw ? with_bands<ORTHOGRAPHIC, true>(bands, f) : with_bands<ORTHOGRAPHIC, false>(bands, f);
}

struct Forward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  bool antialiased;
  float *splats, *depths;
  template <int MODEL, bool RAW, int BANDS>
  void run() const {
    project<MODEL, RAW, BANDS>(in, camera, pose, antialiased, splats, depths);
  }
};

struct Backward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  bool antialiased;
  const float *splats, *d_splats;
  const Outputs& out;
  float* d_pose;
  template <int MODEL, bool RAW, int BANDS>
  void run() const {
    project_backward<MODEL, RAW, BANDS>(in, camera, pose, antialiased, splats, d_splats, out,
                                        d_pose);
  }
};

}  // namespace

// options: camera model, raw, antialiased, harmonics bands, harmonics stored
LG_EXPORT void lg_splat_project(const float* means, const float* rotations, const float* scales,
                                const float* opacities, const float* harmonics,
                                const float* world_to_camera, const SplatCamera* camera,
                                const int32_t* options, int64_t count, float* splats,
                                float* depths) {
  const Inputs in{means, rotations, scales, opacities, harmonics, count, options[4]};
  const SplatPose pose = load_pose(world_to_camera);
  with_constants(options[0], options[1] != 0, options[3],
                 Forward{in, *camera, pose, options[2] != 0, splats, depths});
}

// d_pose (3, 4) may be null
LG_EXPORT void lg_splat_project_backward(const float* means, const float* rotations,
                                         const float* scales, const float* opacities,
                                         const float* harmonics, const float* world_to_camera,
                                         const SplatCamera* camera, const int32_t* options,
                                         int64_t count, const float* splats,
                                         const float* d_splats, float* d_means, float* d_rotations,
                                         float* d_scales, float* d_opacities, float* d_harmonics,
                                         float* d_pose) {
  const Inputs in{means, rotations, scales, opacities, harmonics, count, options[4]};
  const Outputs out{d_means, d_rotations, d_scales, d_opacities, d_harmonics};
  const SplatPose pose = load_pose(world_to_camera);
  with_constants(options[0], options[1] != 0, options[3],
                 Backward{in, *camera, pose, options[2] != 0, splats, d_splats, out, d_pose});
}
