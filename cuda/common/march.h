// Ray marching through an occupancy grid: one ray at a time, shared by the CPU kernels (the fused
// training step among them), the CUDA kernels and the emulator.
//
// Everything is in grid space: the region of interest is the unit cube, cascade k of K covers the
// cube of side 2^k centred at 0.5 with resolution^3 cells. Cell (x, y, z) of cascade k is bit
// (index & 7) of bits[index >> 3] with index = ((k G + z) G + y) G + x; `coarse` holds one byte for
// each block of 8^3 cells, in the same order with G / 8, and is 0 where the whole block is empty.
// G is a multiple of 8, and of 32 when K > 1: then no block straddles the border of a cascade.
//
// Samples of a ray lie on a lattice: n(t) counts steps from the origin, and sample i stands at
// n(t_start) + jitter + i. With cone = 0 all steps are minimum_step long. Otherwise steps grow with
// distance, dt = clamp(t cone, minimum_step, maximum_step), and n(t) is linear, logarithmic (base
// 1 + cone), linear. Empty space is left out in whole steps, so which samples exist depends on the
// occupied cells alone and a changing grid does not make pictures flicker.
//
// A sample looks at the finest cascade that contains it and whose cells are no smaller than dt.
#pragma once
#include "scalar.h"

namespace lg {

constexpr int BLOCK_SIDE = 8;                // cells along a side of a block of `coarse`
constexpr float HUGE_INVERSE = 1e20f;        // stands for 1 / 0 and keeps 0 * inverse finite
constexpr float FARTHEST_START = 1e6f;       // beyond it fp32 cannot tell neighbouring steps apart
constexpr float SKIP_MARGIN = 0.01f;         // steps; see candidate_behind
constexpr float SHORTEST_DIRECTION = 1e-4f;  // squared length below which a direction is refused

// Fixed for a whole march. Made by the constructor: the last five fields follow from the others.
struct MarchParams {
  int32_t resolution = 0;     // G, cells along a side
  int32_t cascades = 1;       // K
  float minimum_step = 0.0f;  // dt near the camera
  float maximum_step = 0.0f;  // upper bound of dt
  float cone = 0.0f;          // growth of dt with distance; 0: constant steps

  float log_base = 0.0f;    // log(1 + cone)
  float near_limit = 0.0f;  // steps are constant up to here,
  float far_limit = 0.0f;   // and again from here on
  float near_count = 0.0f;  // n(near_limit)
  float far_count = 0.0f;   // n(far_limit)

  LG_HD MarchParams() {}
  LG_HD MarchParams(int32_t resolution_, int32_t cascades_, float minimum_step_,
                    float maximum_step_, float cone_)
      : resolution(resolution_),
        cascades(cascades_),
        minimum_step(minimum_step_),
        maximum_step(maximum_step_),
        cone(cone_) {
    if (!(cone > 0.0f)) return;
    log_base = log1pf(cone);
    near_limit = minimum_step / log_base;  // where dt/dn of both pieces agrees
    far_limit = maximum_step / log_base;
    near_count = near_limit / minimum_step;
    far_count = near_count + logf(far_limit / near_limit) / log_base;
  }
};

// One ray on its way. The caller sets o and d; ray_begin the rest.
struct RayState {
  float o[3];        // origin
  float d[3];        // unit direction
  float inverse[3];  // 1 / d, finite
  float t;           // where the next candidate sample stands
  float t_end;       // samples have t < t_end
  float first;       // lattice coordinate of candidate 0: its t (cone = 0) or its n(t)
  int32_t index;     // number of the next candidate, counted from the first
};

LG_HD bool is_finite(float x) { return (float_bits(x) & 0x7f800000u) != 0x7f800000u; }

// n(t)
LG_HD float steps_until(const MarchParams& params, float t) {
  if (t <= params.near_limit || !(params.cone > 0.0f)) return t / params.minimum_step;
  if (t >= params.far_limit) {
    return params.far_count + (t - params.far_limit) / params.maximum_step;
  }
  return params.near_count + logf(t / params.near_limit) / params.log_base;
}

// The inverse of n, for cone > 0
LG_HD float distance_after(const MarchParams& params, float count) {
  if (count <= params.near_count) return count * params.minimum_step;
  if (count >= params.far_count) {
    return multiply_add(count - params.far_count, params.maximum_step, params.far_limit);
  }
  return params.near_limit * expf((count - params.near_count) * params.log_base);
}

LG_HD float step_length(const MarchParams& params, float t) {
  if (!(params.cone > 0.0f)) return params.minimum_step;
  return minimum(maximum(t * params.cone, params.minimum_step), params.maximum_step);
}

// t of candidate `index`, from its number: no rounding error adds up along the ray.
LG_HD float lattice_distance(const MarchParams& params, const RayState& ray, int32_t index) {
  if (!(params.cone > 0.0f)) {
    return multiply_add((float)index, params.minimum_step, ray.first);
  }
  return distance_after(params, ray.first + (float)index);
}

LG_HD void ray_seek(const MarchParams& params, RayState& ray, int32_t index) {
  ray.index = index;
  ray.t = lattice_distance(params, ray, index);
}

LG_HD void ray_point(const RayState& ray, float t, float* p) {
  for (int a = 0; a < 3; ++a) p[a] = multiply_add(t, ray.d[a], ray.o[a]);
}

// Places the ray on its first candidate: where it enters the outermost cascade (not before near),
// plus `jitter` of a step. False when it misses, lies behind, or is not finite.
LG_HD bool ray_begin(const MarchParams& params, RayState& ray, float near, float far,
                     float jitter) {
  const float half_side = 0.5f * (float)(1 << (params.cascades - 1));
  float enter = 0.0f;
  float leave = FARTHEST_START;
  float length = 0.0f;
  bool finite = is_finite(jitter);
  for (int a = 0; a < 3; ++a) {
    finite = finite && is_finite(ray.o[a]) && is_finite(ray.d[a]);
    length += ray.d[a] * ray.d[a];
    const bool parallel = ray.d[a] < 1e-12f && ray.d[a] > -1e-12f;
    ray.inverse[a] = parallel ? HUGE_INVERSE : 1.0f / ray.d[a];
    const float low = (0.5f - half_side - ray.o[a]) * ray.inverse[a];
    const float high = (0.5f + half_side - ray.o[a]) * ray.inverse[a];
    enter = maximum(enter, minimum(low, high));
    leave = minimum(leave, maximum(low, high));
  }
  // In this order a near or far that is NaN stays NaN, and the ray has no samples.
  const float start = maximum(enter, near);
  ray.t_end = minimum(leave, far);
  ray.t = ray.t_end;
  ray.first = start;
  ray.index = 0;
  if (!finite || !(length > SHORTEST_DIRECTION) || !(start < ray.t_end)) return false;
  ray.first = params.cone > 0.0f ? steps_until(params, start) + jitter
                                 : multiply_add(jitter, params.minimum_step, start);
  ray_seek(params, ray, 0);
  return ray.t < ray.t_end;
}

// Smallest k with 2 |p - 0.5| < 2^k along every axis
LG_HD int32_t cascade_of_point(const float* p) {
  float reach = 0.0f;
  for (int a = 0; a < 3; ++a) reach = maximum(reach, fabsf(p[a] - 0.5f));
  return maximum((int32_t)(float_bits(2.0f * reach) >> 23) - 126, 0);
}

// Smallest k with dt <= 2^k / G
LG_HD int32_t cascade_of_step(const MarchParams& params, float dt) {
  const float cells = dt * (float)params.resolution;
  return maximum((int32_t)((float_bits(cells) - 1u) >> 23) - 126, 0);
}

LG_HD int32_t sample_cascade(const MarchParams& params, const float* p, float dt) {
  const int32_t cascade = maximum(cascade_of_point(p), cascade_of_step(params, dt));
  return minimum(cascade, params.cascades - 1);
}

struct GridCell {
  int32_t cascade;
  int32_t at[3];
};

LG_HD GridCell cell_of_point(const MarchParams& params, const float* p, float dt) {
  GridCell cell;
  cell.cascade = sample_cascade(params, p, dt);
  const float scale = (float)params.resolution / (float)(1 << cell.cascade);
  const float shift = 0.5f * (float)params.resolution;
  for (int a = 0; a < 3; ++a) {
    const float x = multiply_add(p[a] - 0.5f, scale, shift);
    cell.at[a] = minimum(maximum((int32_t)x, 0), params.resolution - 1);
  }
  return cell;
}

// Side, in cells, of the empty cube around the cell that the masks know of: 8, 1, or 0 if occupied.
LG_HD int32_t empty_side(const MarchParams& params, const uint8_t* bits, const uint8_t* coarse,
                         const GridCell& cell) {
  const int32_t blocks = params.resolution / BLOCK_SIDE;
  const int32_t block_z = cell.cascade * blocks + cell.at[2] / BLOCK_SIDE;
  const int32_t block_row = block_z * blocks + cell.at[1] / BLOCK_SIDE;
  if (!coarse[block_row * blocks + cell.at[0] / BLOCK_SIDE]) return BLOCK_SIDE;
  const int32_t row = (cell.cascade * params.resolution + cell.at[2]) * params.resolution;
  const uint32_t index = (uint32_t)(row + cell.at[1]) * (uint32_t)params.resolution + cell.at[0];
  return bits[index >> 3] >> (index & 7) & 1 ? 0 : 1;
}

// Where the ray leaves the cube of `side` cells around `cell`, or comes to steps that look at a
// coarser cascade, whichever is first.
LG_HD float uniform_until(const MarchParams& params, const RayState& ray, const GridCell& cell,
                          int32_t side) {
  const float cell_side = (float)(1 << cell.cascade) / (float)params.resolution;
  const float middle = 0.5f * (float)params.resolution;
  float until = ray.t_end;
  for (int a = 0; a < 3; ++a) {
    const int32_t low = cell.at[a] / side * side;
    const int32_t border = ray.inverse[a] > 0.0f ? low + side : low;
    const float edge = multiply_add((float)border - middle, cell_side, 0.5f);
    until = minimum(until, (edge - ray.o[a]) * ray.inverse[a]);
  }
  if (params.cone > 0.0f && cell.cascade + 1 < params.cascades) {
    until = minimum(until, cell_side / params.cone);
  }
  return maximum(until, ray.t);  // an edge just behind a parallel ray is infinitely far back
}

// The first candidate behind t = until, at least the next one. It may come up to SKIP_MARGIN of a
// step too early: every candidate's place is looked at anew, so coming early costs a look, while
// rounding past `until` would lose a sample.
LG_HD int32_t candidate_behind(const MarchParams& params, const RayState& ray, float until) {
  float target = 0.0f;
  if (params.cone > 0.0f) {
    target = steps_until(params, until) - ray.first;
  } else {
    target = (until - ray.first) / params.minimum_step;
  }
  return maximum((int32_t)ceilf(target - SKIP_MARGIN), ray.index + 1);
}

// The next occupied sample: its distance t, step dt and place p (3 numbers). Advances the ray past
// it; false at the end of the ray.
LG_HD bool ray_next(const MarchParams& params, const uint8_t* bits, const uint8_t* coarse,
                    RayState& ray, float* t, float* dt, float* p) {
  while (ray.t < ray.t_end) {
    const float step = step_length(params, ray.t);
    ray_point(ray, ray.t, p);
    const GridCell cell = cell_of_point(params, p, step);
    const int32_t side = empty_side(params, bits, coarse, cell);
    if (side == 0) {
      *t = ray.t;
      *dt = step;
      ray_seek(params, ray, ray.index + 1);
      return true;
    }
    ray_seek(params, ray, candidate_behind(params, ray, uniform_until(params, ray, cell, side)));
  }
  return false;
}

// The next consecutive candidates that lie in one occupied cell: from *first on, as many as the
// result says; 0 at the end of the ray. Advances the ray past them. One look serves a whole cell,
// so counting is several times faster than with ray_next.
LG_HD int32_t ray_next_run(const MarchParams& params, const uint8_t* bits, const uint8_t* coarse,
                           RayState& ray, int32_t* first) {
  while (ray.t < ray.t_end) {
    float p[3];
    ray_point(ray, ray.t, p);
    const GridCell cell = cell_of_point(params, p, step_length(params, ray.t));
    const int32_t side = empty_side(params, bits, coarse, cell);
    const int32_t begin = ray.index;
    const float until = uniform_until(params, ray, cell, side == 0 ? 1 : side);
    ray_seek(params, ray, candidate_behind(params, ray, until));
    if (side == 0) {
      *first = begin;
      return ray.index - begin;
    }
  }
  return 0;
}

}  // namespace lg
