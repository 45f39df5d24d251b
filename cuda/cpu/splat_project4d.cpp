// Gaussians in space and time to splats on the CPU, and the gradients back; the maths is in
// ../common/gaussian4d.h.
//
// What has faded costs the last row of its rotation. Gaussians are independent; the sum of pose
// gradients does not depend on the number of threads.
#include "gaussian4d.h"
#include "splat_groups.h"

using namespace lg;

namespace {

struct Inputs {
  const float *means, *times, *rotors, *log_scales, *logits, *harmonics, *log_plateaus;
  int64_t count;
  int rows;  // harmonics stored

  TimeSlice slice(int64_t i, const Moment& moment) const {
    return slice_gaussian(means + 3 * i, times[i], rotors + 8 * i, log_scales + 4 * i, logits[i],
                          log_plateaus ? log_plateaus + i : nullptr, moment);
  }
};

struct Outputs {
  float *means, *times, *rotors, *log_scales, *logits, *harmonics, *log_plateaus;
};

struct Forward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  const Moment& moment;
  bool antialiased;
  float *splats, *depths;

  template <int MODEL, int BANDS>
  void run() const {
    for_gaussians(in.count, [&](int64_t i) {
      const TimeSlice g = in.slice(i, moment);
      SplatView v;
      v.ok = false;
      if (g.ok) v = view_axes<MODEL>(camera, pose, g.mean, g.axes, antialiased);
      depths[i] = write_splat<MODEL, BANDS>(camera, v, g.opacity, in.harmonics + 3 * in.rows * i,
                                            splats + SPLAT_ROW * i);
    });
  }
};

struct Backward {
  const Inputs& in;
  const SplatCamera& camera;
  const SplatPose& pose;
  const Moment& moment;
  bool antialiased;
  const float *splats, *d_splats;
  const Outputs& out;
  float* d_pose;

  template <int MODEL, int BANDS>
  void run() const {
    for_gradients(in.count, d_pose, [&](int64_t i) -> AxesGradient {
      const int stored = 3 * in.rows;
      float* d_harmonics = out.harmonics + stored * i;
      TimeGradient d{};
      if (splats[SPLAT_ROW * i + 5] > 0.0f) {
        const TimeSlice g = in.slice(i, moment);
        const SplatView v = view_axes<MODEL>(camera, pose, g.mean, g.axes, antialiased);
        copy_harmonics(in.harmonics + stored * i, 3 * BANDS * BANDS, stored, d_harmonics);
        splat_gradient<MODEL, BANDS, true>(camera, pose, g.mean, g.axes, g.opacity, v, antialiased,
                                           splats + SPLAT_ROW * i, d_splats + SPLAT_ROW * i,
                                           d_harmonics, d);
        slice_gradient(g, moment, d);
      } else {
        std::fill_n(d_harmonics, stored, 0.0f);
      }
      std::copy_n(d.mean, 3, out.means + 3 * i);
      out.times[i] = d.time;
      std::copy_n(d.rotor, 8, out.rotors + 8 * i);
      std::copy_n(d.scale, 4, out.log_scales + 4 * i);
      out.logits[i] = d.opacity;
      if (in.log_plateaus) out.log_plateaus[i] = d.plateau;
      return d;
    });
  }
};

struct Four {
  float x, y, z, w;
};

struct Prepared {
  const Four* planes;
  const float* harmonics;
  const int32_t* listed;
  const SplatCamera& camera;
  const SplatPose& pose;
  float time;
  bool antialiased;
  int width;  // of a row of harmonics
  int64_t always, count, total;
  float *splats, *depths;

  template <int MODEL, int BANDS>
  void run() const {
    for_gaussians(count, [&](int64_t i) {
      const int64_t row = i < always ? i : listed[i - always];
      PreparedSlice g;
      SplatView v;
      v.ok = prepared_gaussian(time, [&](int k) { return planes[k * total + row]; }, g);
      if (v.ok) v = view_axes<MODEL>(camera, pose, g.mean, g.axes, antialiased);
      depths[i] = write_splat<MODEL, BANDS>(camera, v, g.opacity, harmonics + width * row,
                                            splats + SPLAT_ROW * i);
    });
  }
};

}  // namespace

// The first `always` of `total` rows, and those of `listed`: `count` in all. options: camera model,
// antialiased, harmonics bands, numbers in a row of harmonics.
LG_EXPORT void lg_splat_prepared(const float* planes, const float* harmonics,
                                 const int32_t* listed, const float* world_to_camera,
                                 const SplatCamera* camera, const int32_t* options, float time,
                                 int64_t always, int64_t count, int64_t total, float* splats,
                                 float* depths) {
  const SplatPose pose = load_pose(world_to_camera);
  with_constants(options[0], options[2],
                 Prepared{(const Four*)planes, harmonics, listed, *camera, pose, time,
                          options[1] != 0, options[3], always, count, total, splats, depths});
}

// log_plateaus may be null; options: camera model, raw, antialiased, harmonics bands, harmonics
// stored
LG_EXPORT void lg_splat_project4d(const float* means, const float* times, const float* rotors,
                                  const float* log_scales, const float* logits,
                                  const float* harmonics, const float* log_plateaus,
                                  const float* world_to_camera, const SplatCamera* camera,
                                  const Moment* moment, const int32_t* options, int64_t count,
                                  float* splats, float* depths) {
  const Inputs in{means, times, rotors, log_scales, logits, harmonics, log_plateaus, count,
                  options[4]};
  const SplatPose pose = load_pose(world_to_camera);
  with_constants(options[0], options[3],
                 Forward{in, *camera, pose, *moment, options[2] != 0, splats, depths});
}

// d_log_plateaus is null where there are none, and d_pose (3, 4) may be
LG_EXPORT void lg_splat_project4d_backward(
    const float* means, const float* times, const float* rotors, const float* log_scales,
    const float* logits, const float* harmonics, const float* log_plateaus,
    const float* world_to_camera, const SplatCamera* camera, const Moment* moment,
    const int32_t* options, int64_t count, const float* splats, const float* d_splats,
    float* d_means, float* d_times, float* d_rotors, float* d_log_scales, float* d_logits,
    float* d_harmonics, float* d_log_plateaus, float* d_pose) {
  const Inputs in{means, times, rotors, log_scales, logits, harmonics, log_plateaus, count,
                  options[4]};
  const Outputs out{d_means, d_times, d_rotors, d_log_scales, d_logits, d_harmonics,
                    d_log_plateaus};
  const SplatPose pose = load_pose(world_to_camera);
  with_constants(options[0], options[3],
                 Backward{in, *camera, pose, *moment, options[2] != 0, splats, d_splats, out,
                          d_pose});
}
