// Composites packed samples along rays, forward and backward; the equations are in
// ../reference/compositing.py. One ray after the other, rays in parallel: the result does not
// depend on the number of threads. Limit: the two exponentials of a sample.
#include <cmath>

#include "scalar.h"

namespace {

struct Samples {
  const float* density;        // (M,)
  const float* color;          // (M, 3)
  const float* distances;      // (M,)
  const float* steps;          // (M,)
  const int32_t* ray_offsets;  // (N, 2) start, count
};

struct Pixels {
  float* color;          // (N, 3)
  float* opacity;        // (N,)
  float* depth;          // (N,)
  float* distortion;     // (N,)
  float* weights;        // (M,), zero before
  float* transmittance;  // (N,) behind the last sample that counts
  int32_t* used;         // (N,) samples that count
};

void composite_ray(const Samples& in, const float* background, float early_stop, bool distortion,
                   int64_t ray, const Pixels& out) {
  const int32_t start = in.ray_offsets[2 * ray];
  const int32_t end = start + in.ray_offsets[2 * ray + 1];
  float color[3] = {0.0f, 0.0f, 0.0f};
  float opacity = 0.0f;
  float depth = 0.0f;
  float moment = 0.0f;  // of the distances from the first sample: small numbers, little rounding
  float pairs = 0.0f;
  float squares = 0.0f;
  float transmittance = 1.0f;
  int32_t i = start;
  for (; i < end && transmittance >= early_stop; ++i) {
    const float thickness = in.density[i] * in.steps[i];
    const float weight = transmittance * -std::expm1(-thickness);
    transmittance *= std::exp(-thickness);
    out.weights[i] = weight;
    for (int c = 0; c < 3; ++c) color[c] += weight * in.color[3 * (int64_t)i + c];
    if (distortion) {
      const float apart = in.distances[i] - in.distances[start];
      pairs += weight * (apart * opacity - moment);
      squares += weight * weight * in.steps[i];
      moment += weight * apart;
    }
    opacity += weight;
    depth += weight * in.distances[i];
  }
  if (background && transmittance >= early_stop) {
    for (int c = 0; c < 3; ++c) color[c] += transmittance * background[3 * ray + c];
  }
  for (int c = 0; c < 3; ++c) out.color[3 * ray + c] = color[c];
  out.opacity[ray] = opacity;
  out.depth[ray] = depth;
  out.distortion[ray] = 2.0f * pairs + squares / 3.0f;
  out.transmittance[ray] = transmittance;
  out.used[ray] = i - start;
}

// Gradients by the outputs of the forward pass, null for those that the loss does not use
struct PixelGradients {
  const float* color;       // (N, 3)
  const float* opacity;     // (N,)
  const float* depth;       // (N,)
  const float* distortion;  // (N,)
  const float* weights;     // (M,)
};

float element(const float* values, int64_t index) { return values ? values[index] : 0.0f; }

struct Saved {
  const float* opacity;
  const float* weights;
  const float* transmittance;
  const int32_t* used;
};

struct SampleGradients {
  float* density;     // (M,), zero before
  float* color;       // (M, 3), zero before
  float* background;  // (N, 3) or null
};

// From the last sample to the first: sums over later samples, and the transmittance behind each,
// then come without subtracting nearly equal numbers.
void composite_ray_backward(const Samples& in, const float* background, float early_stop,
                            const PixelGradients& gradients, const Saved& saved, int64_t ray,
                            const SampleGradients& out) {
  const int32_t start = in.ray_offsets[2 * ray];
  const float by_opacity = element(gradients.opacity, ray);
  const float by_depth = element(gradients.depth, ray);
  const float by_distortion = element(gradients.distortion, ray);
  float by_color[3];
  for (int c = 0; c < 3; ++c) by_color[c] = element(gradients.color, 3 * ray + c);
  const float seen =  // how much of the background was added
      saved.transmittance[ray] >= early_stop ? saved.transmittance[ray] : 0.0f;
  float total_moment = 0.0f;
  if (by_distortion != 0.0f) {
    for (int32_t i = start; i < start + saved.used[ray]; ++i) {
      total_moment += saved.weights[i] * (in.distances[i] - in.distances[start]);
    }
  }
  float later_value = 0.0f;
  for (int c = 0; c < 3; ++c) {
    if (out.background) out.background[3 * ray + c] = seen * by_color[c];
    if (background) later_value += seen * by_color[c] * background[3 * ray + c];
  }
  float behind = saved.transmittance[ray];
  float later_weight = 0.0f;
  float later_moment = 0.0f;
  for (int32_t i = start + saved.used[ray] - 1; i >= start; --i) {
    const float weight = saved.weights[i];
    float rate = by_opacity + by_depth * in.distances[i] + element(gradients.weights, i);
    for (int c = 0; c < 3; ++c) {
      rate += by_color[c] * in.color[3 * (int64_t)i + c];
      out.color[3 * (int64_t)i + c] = weight * by_color[c];
    }
    if (by_distortion != 0.0f) {
      const float apart = in.distances[i] - in.distances[start];
      const float earlier_weight = saved.opacity[ray] - later_weight - weight;
      const float earlier_moment = total_moment - later_moment - weight * apart;
      const float pairs =
          apart * (earlier_weight - later_weight) - earlier_moment + later_moment;
      rate += by_distortion * (2.0f * pairs + weight * in.steps[i] * (2.0f / 3.0f));
      later_moment += weight * apart;
      later_weight += weight;
    }
    out.density[i] = in.steps[i] * (behind * rate - later_value);
    later_value += weight * rate;
    behind += weight;
  }
}

}  // namespace

LG_EXPORT void lg_composite(const float* density, const float* color, const float* distances,
                            const float* steps, const int32_t* ray_offsets,
                            const float* background, int64_t rays, float early_stop,
                            int32_t distortion, float* pixel, float* opacity, float* depth,
                            float* spread, float* weights, float* transmittance, int32_t* used) {
  const Samples in{density, color, distances, steps, ray_offsets};
  const Pixels out{pixel, opacity, depth, spread, weights, transmittance, used};
#pragma omp parallel for schedule(dynamic, 256)
  for (int64_t ray = 0; ray < rays; ++ray) {
    composite_ray(in, background, early_stop, distortion != 0, ray, out);
  }
}

LG_EXPORT void lg_composite_backward(
    const float* density, const float* color, const float* distances, const float* steps,
    const int32_t* ray_offsets, const float* background, int64_t rays, float early_stop,
    const float* d_pixel, const float* d_opacity, const float* d_depth, const float* d_distortion,
    const float* d_weights, const float* opacity, const float* weights, const float* transmittance,
    const int32_t* used, float* d_density, float* d_color, float* d_background) {
  const Samples in{density, color, distances, steps, ray_offsets};
  const PixelGradients gradients{d_pixel, d_opacity, d_depth, d_distortion, d_weights};
  const Saved saved{opacity, weights, transmittance, used};
  const SampleGradients out{d_density, d_color, d_background};
#pragma omp parallel for schedule(dynamic, 256)
  for (int64_t ray = 0; ray < rays; ++ray) {
    composite_ray_backward(in, background, early_stop, gradients, saved, ray, out);
  }
}
