// Blends the splats of each tile front to back, and takes gradients back to them.
//
// One warp = 8 x 4 PIXELS of the image (a block = one tile): its lanes first test 32 splats of the
// tile's list against the warp's rectangle (exact ellipse test), keep the hits in shared memory, then
// act as pixels. No block barrier. Backward walks the list from its end; each warp sums its lanes'
// gradients by shuffles, then adds one vector a splat with atomics.
//
// Memory: 48 bytes a (warp, splat) from L2, some 20 bytes a pixel. Limited by arithmetic and, for
// short lists, by latency.
// LG_PIXELS: pixels a lane, one above the other (1, 2 or 4). LG_DEPTH: also blended and median depth.
// LG_EXTRAS: further channels (0 to 16), from a table of their own. LG_ABSOLUTE: also sums of
// absolute screen gradients (AbsGS, Ye et al. 2024).
#include "device.h"
#include "splat.h"
#include "splat_moments.h"
#include "splat_tiles.h"

#ifndef LG_PIXELS
#define LG_PIXELS 2
#endif
#ifndef LG_DEPTH
#define LG_DEPTH 0
#endif
#ifndef LG_EXTRAS
#define LG_EXTRAS 0
#endif
#ifndef LG_ABSOLUTE
#define LG_ABSOLUTE 0
#endif

constexpr int PIXELS = LG_PIXELS, EXTRAS = LG_EXTRAS;
constexpr int KEPT = EXTRAS ? EXTRAS : 1;  // no array may be empty
constexpr int WARPS = 8 / PIXELS;
constexpr unsigned WARP = 0xffffffffu;

struct Hits {  // splats that reach the warp's rectangle
  float4 p[32], q[32];    // x y a b, c opacity red green
  float4 r[32];           // blue, depth, place in the list, splat (as bits)
  float extras[KEPT][32];
};

struct Patch {
  int x, y, lane;      // first pixel of the warp's rectangle
  float fx, fy;        // centre of this lane's first pixel
};

__device__ inline Patch patch_of(int width) {
  const int columns = (width + lg::TILE - 1) / lg::TILE, warp = threadIdx.x / 32;
  Patch patch;
  patch.lane = threadIdx.x & 31;
  patch.x = (blockIdx.x % columns) * lg::TILE + (warp & 1) * 8;
  patch.y = (blockIdx.x / columns) * lg::TILE + (warp >> 1) * 4 * PIXELS;
  patch.fx = patch.x + (patch.lane & 7) + 0.5f;
  patch.fy = patch.y + (patch.lane >> 3) + 0.5f;
  return patch;
}

// Collects those of 32 splats, one a lane (`place` < 0: none), that the warp can see.
__device__ inline int collect(const float4* __restrict__ splats, const float* __restrict__ extras,
                              const int32_t* __restrict__ ids, int place, const Patch& patch,
                              Hits& hits) {
  bool hit = false;
  float4 p, q;
  int id = 0;
  if (place >= 0) {
    id = ids[place];
    p = splats[3 * (size_t)id];
    q = splats[3 * (size_t)id + 1];
    const float reach = lg::reach_of(q.y);
    hit = lg::reaches(p.x, p.y, p.z, p.w, q.x, reach, patch.x + 0.5f, patch.x + 7.5f,
                      patch.y + 0.5f, patch.y + 4 * PIXELS - 0.5f);
  }
  const unsigned mask = __ballot_sync(WARP, hit);
  if (hit) {
    const int s = __popc(mask & ((1u << patch.lane) - 1));
    const float2 tail = *(const float2*)&splats[3 * (size_t)id + 2];
    hits.p[s] = p;
    hits.q[s] = q;
    hits.r[s] = make_float4(tail.x, tail.y, __int_as_float(place), __int_as_float(id));
#pragma unroll
    for (int e = 0; e < EXTRAS; ++e) hits.extras[e][s] = extras[EXTRAS * (size_t)id + e];
  }
  __syncwarp();
  return __popc(mask);
}

extern "C" __global__ void __launch_bounds__(32 * WARPS)
    splat_raster(const float4* __restrict__ splats, const float* __restrict__ extras,
                 const int32_t* __restrict__ ids, const int32_t* __restrict__ starts,
                 const float* __restrict__ background, int has_background, int width, int height,
                 float* __restrict__ color, float* __restrict__ transmittance,
                 int32_t* __restrict__ last, float* __restrict__ depth, float* __restrict__ median,
                 float* __restrict__ blended) {
  __shared__ Hits shared_hits[WARPS];
  Hits& hits = shared_hits[threadIdx.x / 32];
  const Patch patch = patch_of(width);
  const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1], lane = patch.lane;
  const int x = patch.x + (lane & 7), y = patch.y + (lane >> 3);
  float left[PIXELS], red[PIXELS], green[PIXELS], blue[PIXELS], far[PIXELS], middle[PIXELS];
  float more[PIXELS][KEPT];
  int used[PIXELS];
  bool done[PIXELS];
#pragma unroll
  for (int u = 0; u < PIXELS; ++u) {
    left[u] = 1.0f;
    red[u] = green[u] = blue[u] = far[u] = middle[u] = 0.0f;
    used[u] = -1;
    done[u] = x >= width || y + 4 * u >= height;
#pragma unroll
    for (int e = 0; e < EXTRAS; ++e) more[u][e] = 0.0f;
  }
  for (int base = first; base < end; base += 32) {
    bool all = true;
#pragma unroll
    for (int u = 0; u < PIXELS; ++u) all = all && done[u];
    if (__ballot_sync(WARP, all) == WARP) break;
    const int place = base + lane;
    const int count = collect(splats, extras, ids, place < end ? place : -1, patch, hits);
    for (int j = 0; j < count; ++j) {
      const float4 p = hits.p[j], q = hits.q[j], r = hits.r[j];
      const float dx = p.x - patch.fx;
#pragma unroll
      for (int u = 0; u < PIXELS; ++u) {
        const float dy = p.y - (patch.fy + 4 * u);
        const float sigma = 0.5f * (p.z * dx * dx + q.x * dy * dy) + p.w * dx * dy;
        const float alpha = lg::minimum(lg::LARGEST_ALPHA, q.y * __expf(-sigma));
        if (done[u] || !(sigma >= 0.0f) || !(alpha >= lg::SMALLEST_ALPHA)) continue;
        const float next = left[u] * (1.0f - alpha);
        if (next <= lg::SMALLEST_TRANSMITTANCE) {
          done[u] = true;
          continue;
        }
        const float weight = alpha * left[u];
        red[u] += weight * q.z;
        green[u] += weight * q.w;
        blue[u] += weight * r.x;
        if (LG_DEPTH) {
          far[u] += weight * r.y;
          if (left[u] > 0.5f && next <= 0.5f) middle[u] = r.y;
        }
#pragma unroll
        for (int e = 0; e < EXTRAS; ++e) more[u][e] += weight * hits.extras[e][j];
        left[u] = next;
        used[u] = __float_as_int(r.z);
      }
    }
    __syncwarp();
  }
#pragma unroll
  for (int u = 0; u < PIXELS; ++u) {
    if (x >= width || y + 4 * u >= height) continue;
    const size_t pixel = (size_t)(y + 4 * u) * width + x;
    float behind[3] = {0.0f, 0.0f, 0.0f};
    if (has_background)
      for (int j = 0; j < 3; ++j) behind[j] = left[u] * background[j];
    color[3 * pixel] = red[u] + behind[0];
    color[3 * pixel + 1] = green[u] + behind[1];
    color[3 * pixel + 2] = blue[u] + behind[2];
    transmittance[pixel] = left[u];
    last[pixel] = used[u];
    if (LG_DEPTH) {
      depth[pixel] = far[u];
      median[pixel] = middle[u];
    }
#pragma unroll
    for (int e = 0; e < EXTRAS; ++e) blended[EXTRAS * pixel + e] = more[u][e];
  }
}
LG_KERNEL(splat_raster)

// Sums 9 values over the warp with 12 shuffles instead of 45: every step halves the number of values
// a lane carries. Lanes with bit 1 clear get the sum of value lane / 4, the others that of value 8.
__device__ inline float sum_nine(float (&v)[9], int lane) {
#pragma unroll
  for (int w = 4, o = 16; w; w /= 2, o /= 2) {
    const bool up = lane & o;
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < w) {
        const float give = up ? v[k] : v[k + w], keep = up ? v[k + w] : v[k];
        v[k] = keep + __shfl_xor_sync(WARP, give, o);
      }
    v[8] += __shfl_xor_sync(WARP, v[8], o);
  }
  const bool up = lane & 2;
  const float give = up ? v[0] : v[8], keep = up ? v[8] : v[0];
  const float sum = keep + __shfl_xor_sync(WARP, give, 2);
  return sum + __shfl_xor_sync(WARP, sum, 1);
}

__device__ inline float sum_warp(float value) {
#pragma unroll
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(WARP, value, step);
  return value;
}

// Adds to the moments of every splat, see splat_moments.h. d_depth may be any address without
// LG_DEPTH, d_extras and d_blended without extras.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    splat_raster_backward(const float4* __restrict__ splats, const float* __restrict__ extras,
                          const int32_t* __restrict__ ids, const int32_t* __restrict__ starts,
                          const float* __restrict__ background, int has_background, int width,
                          int height, const float* __restrict__ transmittance,
                          const int32_t* __restrict__ last, const float* __restrict__ d_color,
                          const float* __restrict__ d_transmittance, int has_d_transmittance,
                          const float* __restrict__ d_depth, const float* __restrict__ d_blended,
                          float* __restrict__ moments, float* __restrict__ d_extras) {
  __shared__ Hits shared_hits[WARPS];
  Hits& hits = shared_hits[threadIdx.x / 32];
  const Patch patch = patch_of(width);
  const int first = starts[blockIdx.x], lane = patch.lane;
  const int x = patch.x + (lane & 7), y = patch.y + (lane >> 3);
  float left[PIXELS], behind[PIXELS], d0[PIXELS], d1[PIXELS], d2[PIXELS], d_far[PIXELS];
  float d_more[PIXELS][KEPT];
  int used[PIXELS], end = -1;
#pragma unroll
  for (int u = 0; u < PIXELS; ++u) {
    const bool inside = x < width && y + 4 * u < height;
    const size_t pixel = inside ? (size_t)(y + 4 * u) * width + x : 0;
    left[u] = inside ? transmittance[pixel] : 0.0f;
    used[u] = inside ? last[pixel] : -1;
    d0[u] = inside ? d_color[3 * pixel] : 0.0f;
    d1[u] = inside ? d_color[3 * pixel + 1] : 0.0f;
    d2[u] = inside ? d_color[3 * pixel + 2] : 0.0f;
    d_far[u] = LG_DEPTH && inside ? d_depth[pixel] : 0.0f;
#pragma unroll
    for (int e = 0; e < EXTRAS; ++e) d_more[u][e] = inside ? d_blended[EXTRAS * pixel + e] : 0.0f;
    // what lies behind, times the gradient that it receives
    float seen = has_d_transmittance && inside ? d_transmittance[pixel] : 0.0f;
    if (has_background)
      seen += d0[u] * background[0] + d1[u] * background[1] + d2[u] * background[2];
    behind[u] = left[u] * seen;
    end = lg::maximum(end, used[u]);
  }
#pragma unroll
  for (int o = 16; o; o /= 2) end = lg::maximum(end, __shfl_xor_sync(WARP, end, o));
  for (++end; end > first; end -= 32) {
    const int own = end - 1 - lane;
    const int count = collect(splats, extras, ids, own >= first ? own : -1, patch, hits);
    for (int j = 0; j < count; ++j) {
      const float4 p = hits.p[j], q = hits.q[j], r = hits.r[j];
      const int place = __float_as_int(r.z), id = __float_as_int(r.w);
      const float dx = p.x - patch.fx;
      float v[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0}, by_depth = 0.0f, abs_x = 0.0f, abs_y = 0.0f;
      float by_extras[KEPT];
#pragma unroll
      for (int e = 0; e < EXTRAS; ++e) by_extras[e] = 0.0f;
      bool any = false;
#pragma unroll
      for (int u = 0; u < PIXELS; ++u) {
        const float dy = p.y - (patch.fy + 4 * u);
        const float sigma = 0.5f * (p.z * dx * dx + q.x * dy * dy) + p.w * dx * dy;
        const float free = q.y * __expf(-sigma), alpha = lg::minimum(lg::LARGEST_ALPHA, free);
        if (used[u] < place || !(sigma >= 0.0f) || !(alpha >= lg::SMALLEST_ALPHA)) continue;
        any = true;
        const float inverse = __fdividef(1.0f, 1.0f - alpha);
        left[u] *= inverse;  // in front of this splat
        const float weight = alpha * left[u];
        float value = d0[u] * q.z + d1[u] * q.w + d2[u] * r.x;
        if (LG_DEPTH) {
          value += d_far[u] * r.y;
          by_depth += weight * d_far[u];
        }
#pragma unroll
        for (int e = 0; e < EXTRAS; ++e) {
          value += d_more[u][e] * hits.extras[e][j];
          by_extras[e] += weight * d_more[u][e];
        }
        const float by_alpha = value * left[u] - behind[u] * inverse;
        behind[u] += weight * value;
        v[0] += weight * d0[u];
        v[1] += weight * d1[u];
        v[2] += weight * d2[u];
        const float s = free < lg::LARGEST_ALPHA ? -by_alpha * alpha : 0.0f;
        v[3] += s;
        v[4] += s * dx;
        v[5] += s * dy;
        v[6] += s * dx * dx;
        v[7] += s * dx * dy;
        v[8] += s * dy * dy;
        if (LG_ABSOLUTE) {
          abs_x += fabsf(s * (p.z * dx + p.w * dy));
          abs_y += fabsf(s * (p.w * dx + q.x * dy));
        }
      }
      if (!__any_sync(WARP, any)) continue;
      float* target = moments + MOMENTS * (size_t)id;
      const float sum = sum_nine(v, lane);
      if ((lane & 3) == 0 || lane == 2)
        atomicAdd(target + (lane == 2 ? 8 : lane >> 2), sum);
      if (LG_DEPTH) {
        by_depth = sum_warp(by_depth);
        if (lane == 0) atomicAdd(target + 9, by_depth);
      }
      if (LG_ABSOLUTE) {
        abs_x = sum_warp(abs_x);
        abs_y = sum_warp(abs_y);
        if (lane == 0) atomicAdd(target + 10, abs_x);
        if (lane == 1) atomicAdd(target + 11, abs_y);
      }
#pragma unroll
      for (int e = 0; e < EXTRAS; ++e) {
        const float total = sum_warp(by_extras[e]);
        if (lane == e) atomicAdd(d_extras + EXTRAS * (size_t)id + e, total);
      }
    }
    __syncwarp();
  }
}
LG_KERNEL(splat_raster_backward)

// Moments to the gradient by a splat's row, in place; absolute sums go to `absolute` (splats, 2).
// One thread = one splat.
extern "C" __global__ void __launch_bounds__(256)
    splat_raster_finish(const float4* __restrict__ splats, int count, float4* __restrict__ moments,
                        float2* __restrict__ absolute) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= count) return;
  const float4 p = splats[3 * (size_t)i], q = splats[3 * (size_t)i + 1];
  if (!(q.y > 0.0f)) {  // moments are zero
    if (LG_ABSOLUTE) absolute[i] = make_float2(0.0f, 0.0f);
    return;
  }
  const float row[6] = {p.x, p.y, p.z, p.w, q.x, q.y};
  float4 m[3] = {moments[3 * (size_t)i], moments[3 * (size_t)i + 1], moments[3 * (size_t)i + 2]};
  if (LG_ABSOLUTE) absolute[i] = make_float2(m[2].z, m[2].w);
  finish_moments(row, m);
#pragma unroll
  for (int j = 0; j < 3; ++j) moments[3 * (size_t)i + j] = m[j];
}
LG_KERNEL(splat_raster_finish)
