// Gaussians to splats on the CPU, and the gradients back; the maths is in ../common/gaussian.h.
//
// Gaussians are independent; the sum of pose gradients does not depend on the number of threads.
#include "gaussian.h"
#include "splat_groups.h"

using namespace lg;

namespace {

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
  for_gaussians(in.count, [&](int64_t i) {
    const GaussianShape g =
        activate<RAW>(in.rotations + 4 * i, in.scales + 3 * i, in.opacities[i]);
    float axes[9];
    gaussian_axes(g, axes);
    const SplatView v = view_axes<MODEL>(camera, pose, in.means + 3 * i, axes, antialiased);
    depths[i] = write_splat<MODEL, BANDS>(camera, v, g.opacity, in.harmonics + 3 * in.rows * i,
                                          splats + SPLAT_ROW * i);
  });
}

template <int MODEL, bool RAW, int BANDS>
void project_backward(const Inputs& in, const SplatCamera& camera, const SplatPose& pose,
                      bool antialiased, const float* splats, const float* d_splats,
                      const Outputs& out, float* d_pose) {
  for_gradients(in.count, d_pose, [&](int64_t i) -> AxesGradient {
    const int stored = 3 * in.rows;
    float* d_harmonics = out.harmonics + stored * i;
    GaussianGradient d{};
    if (splats[SPLAT_ROW * i + 5] > 0.0f) {
      const GaussianShape g =
          activate<RAW>(in.rotations + 4 * i, in.scales + 3 * i, in.opacities[i]);
      float axes[9];
      gaussian_axes(g, axes);
      const SplatView v = view_axes<MODEL>(camera, pose, in.means + 3 * i, axes, antialiased);
      copy_harmonics(in.harmonics + stored * i, 3 * BANDS * BANDS, stored, d_harmonics);
      splat_gradient<MODEL, BANDS, true>(camera, pose, in.means + 3 * i, axes, g.opacity, v,
                                         antialiased, splats + SPLAT_ROW * i,
                                         d_splats + SPLAT_ROW * i, d_harmonics, d);
      gaussian_gradient<RAW>(g, d);
    } else {
      std::fill_n(d_harmonics, stored, 0.0f);
    }
    std::copy_n(d.mean, 3, out.means + 3 * i);
    std::copy_n(d.q, 4, out.rotations + 4 * i);
    std::copy_n(d.scale, 3, out.scales + 3 * i);
    out.opacities[i] = d.opacity;
    return d;
  });
}

struct Forward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  bool raw, antialiased;
  float *splats, *depths;
  template <int MODEL, int BANDS>
  void run() const {
    const auto chosen = raw ? project<MODEL, true, BANDS> : project<MODEL, false, BANDS>;
    chosen(in, camera, pose, antialiased, splats, depths);
  }
};

struct Backward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  bool raw, antialiased;
  const float *splats, *d_splats;
  const Outputs& out;
  float* d_pose;
  template <int MODEL, int BANDS>
  void run() const {
    const auto chosen =
        raw ? project_backward<MODEL, true, BANDS> : project_backward<MODEL, false, BANDS>;
    chosen(in, camera, pose, antialiased, splats, d_splats, out, d_pose);
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
  with_constants(options[0], options[3],
                 Forward{in, *camera, pose, options[1] != 0, options[2] != 0, splats, depths});
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
  with_constants(options[0], options[3],
                 Backward{in, *camera, pose, options[1] != 0, options[2] != 0, splats, d_splats,
                          out, d_pose});
}
