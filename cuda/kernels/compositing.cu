// Composites packed samples along rays, forward and backward; the equations are in
// ../reference/compositing.py.
//
// LANES threads a ray take LANES samples at a time: neighbours read neighbouring samples, and
// running sums go through shuffles. All rays of a warp go on until the longest is done, so that
// every shuffle is met by the whole warp. Memory: samples packed by ray, 24 bytes each forward,
// 28 read and 16 written backward. Expected: 2^10 to 2^20 rays of 0 to 1024 samples, most below
// 100. Limited by memory; with few rays by the length of the longest.
#include "device.h"

#ifndef LG_LANES
#define LG_LANES 8
#endif

constexpr int LANES = LG_LANES;
constexpr unsigned WARP = 0xffffffffu;
constexpr unsigned GROUP = LANES == 32 ? WARP : (1u << (LANES % 32)) - 1;
// Bits of `options`: tensors whose bit is not set may be any address.
constexpr int HAS_BACKGROUND = 1;
constexpr int WANTS_DISTORTION = 2;
constexpr int WANTS_BACKGROUND_GRADIENT = 2;
// Gradients that came: by which output
constexpr int BY_COLOR = 4;
constexpr int BY_OPACITY = 8;
constexpr int BY_DEPTH = 16;
constexpr int BY_DISTORTION = 32;
constexpr int BY_WEIGHTS = 64;

// sum over this lane and those before it in the group of one ray
__device__ inline float sum_up_to(float value, int lane) {
  for (int step = 1; step < LANES; step *= 2) {
    const float other = __shfl_up_sync(WARP, value, step, LANES);
    if (lane >= step) value += other;
  }
  return value;
}

// sum over this lane and those behind it
__device__ inline float sum_from(float value, int lane) {
  for (int step = 1; step < LANES; step *= 2) {
    const float other = __shfl_down_sync(WARP, value, step, LANES);
    if (lane + step < LANES) value += other;
  }
  return value;
}

__device__ inline float sum_all(float value) {
  for (int step = 1; step < LANES; step *= 2) {
    value += __shfl_xor_sync(WARP, value, step, LANES);
  }
  return value;
}

__device__ inline float of_lane(float value, int lane) {
  return __shfl_sync(WARP, value, lane, LANES);
}

__device__ inline float value_before(float value, int lane, float first) {
  const float other = __shfl_up_sync(WARP, value, 1, LANES);
  return lane > 0 ? other : first;
}

__device__ inline float value_behind(float value, int lane, float last) {
  const float other = __shfl_down_sync(WARP, value, 1, LANES);
  return lane + 1 < LANES ? other : last;
}

extern "C" __global__ void composite_forward(
    const float* density, const float* color, const float* distances, const float* steps,
    const int2* ray_offsets, const float* background, float* pixel, float* opacity, float* depth,
    float* distortion, float* weights, float* transmittance, int32_t* used, int rays,
    float early_stop, int options) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const int lane = thread % LANES;
  const int ray = thread / LANES;
  const int first_lane = threadIdx.x % 32 / LANES * LANES;
  int2 span = make_int2(0, 0);
  if (ray < rays) span = ray_offsets[ray];
  const float origin = span.y > 0 ? distances[span.x] : 0.0f;

  float sum[5] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};  // color, opacity, depth of this lane's samples
  float pairs = 0.0f;
  float squares = 0.0f;
  float weight_so_far = 0.0f;
  float moment_so_far = 0.0f;
  float light = 1.0f;  // transmittance in front of the next samples
  int counted = 0;
  for (int base = 0;; base += LANES) {
    const bool active = base < span.y && light >= early_stop;
    if (!__any_sync(WARP, active)) break;
    const bool present = active && base + lane < span.y;
    const int i = span.x + base + lane;
    const float thickness = present ? density[i] * steps[i] : 0.0f;
    const float behind = light * __expf(-sum_up_to(thickness, lane));
    const float before = value_before(behind, lane, light);
    // behind never rises, so the samples that count come first.
    const bool counts = present && before >= early_stop;
    const float weight = counts ? before * -expm1f(-thickness) : 0.0f;
    if (counts) {
      weights[i] = weight;
      for (int c = 0; c < 3; ++c) sum[c] += weight * color[3 * (size_t)i + c];
      sum[3] += weight;
      sum[4] += weight * distances[i];
    }
    if (options & WANTS_DISTORTION) {
      const float apart = counts ? distances[i] - origin : 0.0f;
      const float total_weight = sum_up_to(weight, lane);
      const float total_moment = sum_up_to(weight * apart, lane);
      const float earlier_weight = weight_so_far + total_weight - weight;
      const float earlier_moment = moment_so_far + total_moment - weight * apart;
      pairs += weight * (apart * earlier_weight - earlier_moment);
      if (counts) squares += weight * weight * steps[i];
      weight_so_far += of_lane(total_weight, LANES - 1);
      moment_so_far += of_lane(total_moment, LANES - 1);
    }
    const unsigned votes = __ballot_sync(WARP, counts) >> first_lane & GROUP;
    const int count = __popc(votes);
    counted += count;
    const float last = of_lane(behind, count > 0 ? count - 1 : 0);
    if (count > 0) light = last;
  }
  for (int k = 0; k < 5; ++k) sum[k] = sum_all(sum[k]);
  const float spread = 2.0f * sum_all(pairs) + sum_all(squares) / 3.0f;
  if (ray >= rays || lane != 0) return;
  for (int c = 0; c < 3; ++c) {
    const bool add = (options & HAS_BACKGROUND) && light >= early_stop;
    pixel[3 * (size_t)ray + c] = sum[c] + (add ? light * background[3 * (size_t)ray + c] : 0.0f);
  }
  opacity[ray] = sum[3];
  depth[ray] = sum[4];
  distortion[ray] = spread;
  transmittance[ray] = light;
  used[ray] = counted;
}
LG_KERNEL(composite_forward)

// From the last sample to the first: sums over later samples, and the transmittance behind each,
// then come without subtracting nearly equal numbers.
extern "C" __global__ void composite_backward(
    const float* color, const float* distances, const float* steps, const int2* ray_offsets,
    const float* background, const float* d_pixel, const float* d_opacity, const float* d_depth,
    const float* d_distortion, const float* d_weights, const float* opacity, const float* weights,
    const float* transmittance, const int32_t* used, float* d_density, float* d_color,
    float* d_background, int rays, float early_stop, int options) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x;
  const int lane = thread % LANES;
  const int ray = thread / LANES;
  const bool valid = ray < rays;
  const int start = valid ? ray_offsets[ray].x : 0;
  const int count = valid ? used[ray] : 0;
  const float origin = count > 0 ? distances[start] : 0.0f;

  float light = valid ? transmittance[ray] : 0.0f;     // behind the samples to come
  const float seen = light >= early_stop ? light : 0.0f;  // of the background
  float by_color[3] = {0.0f, 0.0f, 0.0f};
  float value_later = 0.0f;
  for (int c = 0; c < 3 && valid; ++c) {
    if (options & BY_COLOR) by_color[c] = d_pixel[3 * (size_t)ray + c];
    if (options & HAS_BACKGROUND) {
      value_later += seen * by_color[c] * background[3 * (size_t)ray + c];
    }
    if ((options & WANTS_BACKGROUND_GRADIENT) && lane == 0) {
      d_background[3 * (size_t)ray + c] = seen * by_color[c];
    }
  }
  const float by_opacity = valid && (options & BY_OPACITY) ? d_opacity[ray] : 0.0f;
  const float by_depth = valid && (options & BY_DEPTH) ? d_depth[ray] : 0.0f;
  const float by_distortion = valid && (options & BY_DISTORTION) ? d_distortion[ray] : 0.0f;
  const float all_weight = valid ? opacity[ray] : 0.0f;
  float all_moment = 0.0f;
  if (options & BY_DISTORTION) {
    for (int i = start + lane; i < start + count; i += LANES) {
      all_moment += weights[i] * (distances[i] - origin);
    }
    all_moment = sum_all(all_moment);
  }
  float weight_later = 0.0f;
  float moment_later = 0.0f;

  for (int base = (count + LANES - 1) / LANES * LANES - LANES;; base -= LANES) {
    if (!__any_sync(WARP, base >= 0)) break;
    const bool present = base >= 0 && base + lane < count;
    const int i = start + base + lane;
    const float weight = present ? weights[i] : 0.0f;
    const float distance = present ? distances[i] : 0.0f;
    const float step = present ? steps[i] : 0.0f;
    float rate = by_opacity + by_depth * distance;
    if (present && (options & BY_WEIGHTS)) rate += d_weights[i];
    for (int c = 0; c < 3 && present; ++c) {
      rate += by_color[c] * color[3 * (size_t)i + c];
      d_color[3 * (size_t)i + c] = weight * by_color[c];
    }
    const float weight_from = sum_from(weight, lane);
    if (options & BY_DISTORTION) {
      const float apart = present ? distance - origin : 0.0f;
      const float moment_from = sum_from(weight * apart, lane);
      const float later_weight = weight_later + weight_from - weight;
      const float later_moment = moment_later + moment_from - weight * apart;
      const float earlier_weight = all_weight - later_weight - weight;
      const float earlier_moment = all_moment - later_moment - weight * apart;
      const float both = apart * (earlier_weight - later_weight) - earlier_moment + later_moment;
      rate += by_distortion * (2.0f * both + weight * step * (2.0f / 3.0f));
      weight_later += of_lane(weight_from, 0);
      moment_later += of_lane(moment_from, 0);
    }
    const float value_from = sum_from(present ? weight * rate : 0.0f, lane);
    const float behind = light + value_behind(weight_from, lane, 0.0f);
    const float later = value_later + value_behind(value_from, lane, 0.0f);
    if (present) d_density[i] = step * (behind * rate - later);
    light += of_lane(weight_from, 0);
    value_later += of_lane(value_from, 0);
  }
}
LG_KERNEL(composite_backward)
