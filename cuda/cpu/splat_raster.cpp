// Blends the splats of each tile on the CPU, front to back, and takes gradients back to them.
//
// Half rows of 8 pixels are one vector; of each splat only the rows and halves are visited that its
// ellipse can reach. Gradients go into one slot a (tile, splat) pair and are then added up by splat in
// list order, so that every result is the same for any number of threads. Vector types of GCC and
// Clang: SSE2, AVX2, AVX-512 and NEON from one source.
#include <algorithm>
#include <cmath>
#include <vector>

#include "splat.h"
#include "splat_tiles.h"

using namespace lg;

namespace {

typedef float Vector __attribute__((vector_size(32), may_alias));
typedef int32_t Mask __attribute__((vector_size(32), may_alias));
typedef int64_t Wide __attribute__((vector_size(32), may_alias));

constexpr int LANES = 8, HALVES = TILE / LANES;
constexpr int MOST_CHANNELS = 20;  // color, depth, 16 extras
const Vector PLACES = {0, 1, 2, 3, 4, 5, 6, 7};

inline bool any(Mask m) {
  const Wide w = (Wide)m;
  return (w[0] | w[1] | w[2] | w[3]) != 0;
}

inline float sum(Vector v) {
  const float a = v[0] + v[4], b = v[1] + v[5], c = v[2] + v[6], d = v[3] + v[7];
  return (a + c) + (b + d);
}

// exp for [-87, 0], relative error below 3e-7: 2^n times a polynomial for the rest
inline Vector exponential(Vector x) {
  x = x < -87.0f ? Vector{} - 87.0f : x;
  const Vector t = x * 1.44269504f;
  const Mask whole = __builtin_convertvector(t - 0.5f, Mask);
  const Vector f = t - __builtin_convertvector(whole, Vector);
  Vector p = f * 1.535336188319500e-4f + 1.339887440266574e-3f;
  p = p * f + 9.618437357674640e-3f;
  p = p * f + 5.550332471162809e-2f;
  p = p * f + 2.402264791363012e-1f;
  p = p * f + 6.931472028550421e-1f;
  p = p * f + 1.0f;
  return p * (Vector)((whole + 127) << 23);
}

inline Vector smaller(Vector a, Vector b) { return a < b ? a : b; }
inline Vector size_of(Vector a) { return a < 0.0f ? -a : a; }

// What every tile needs of a splat, computed once: 16 floats, one cache line.
struct alignas(64) Prepared {
  float x, y, a, b, c, opacity, most;  // most: the exponent where alpha is 1/255
  float high, inverse_a, rest;         // half height; 1 / a; determinant / a
};

std::vector<Prepared> prepare(const float* splats, int64_t count) {
  std::vector<Prepared> prepared(count);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    const float* row = splats + SPLAT_ROW * i;
    if (!(row[5] > 0.0f)) continue;
    Prepared& s = prepared[i];
    s.x = row[0], s.y = row[1], s.a = row[2], s.b = row[3], s.c = row[4], s.opacity = row[5];
    s.most = largest_sigma(row[5]);
    s.high = (row[11] < 0.0f ? row[10] : row[11]) * 1.001f + 1e-3f;
    s.inverse_a = 1.0f / s.a;
    s.rest = std::max(s.c - s.b * s.b * s.inverse_a, 0.0f);
  }
  return prepared;
}

// Rows of the tile (from `top`) that the splat can reach, and the halves of one row.
struct Rows {
  int first, last;
};

inline Rows rows_of(const Prepared& s, int top) {
  const float from = std::ceil(s.y - s.high - 0.5f), to = std::floor(s.y + s.high - 0.5f);
  return {(int)std::max(0.0f, from - top), (int)std::min(TILE - 1.0f, to - top)};
}

// `right` is the splat's distance to the right of the tile's first pixel centre.
inline Rows halves_of(const Prepared& s, float dy, float right) {
  const float room = (2.0f * s.most - s.rest * dy * dy) * s.inverse_a;
  const float reach = std::sqrt(std::max(0.0f, room)) * 1.001f + 1e-2f;
  const float middle = right + s.b * dy * s.inverse_a;
  Rows halves{middle - reach > LANES - 1.0f ? 1 : 0, middle + reach < LANES ? 0 : 1};
  if (middle + reach < 0.0f || middle - reach > TILE - 1.0f) halves.last = -1;
  return halves;
}

struct Picture {
  int width, height;
  const int32_t *ids, *starts;
  int columns() const { return (width + TILE - 1) / TILE; }
  int tiles() const { return columns() * ((height + TILE - 1) / TILE); }
};

// Values of a splat by channel: color, then depth if asked, then extras.
struct Channels {
  const float *splats, *extras;
  int extra_count;
  bool depth;
  int count() const { return 3 + depth + extra_count; }
  void of(int64_t id, float* values) const {
    const float* row = splats + SPLAT_ROW * id;
    values[0] = row[6], values[1] = row[7], values[2] = row[8];
    if (depth) values[3] = row[9];
    for (int e = 0; e < extra_count; ++e) values[3 + depth + e] = extras[extra_count * id + e];
  }
};

struct Images {
  float *color, *transmittance;
  int32_t* last;
  float *depth, *median, *blended;  // null, or not used, when not asked for
};

// CHANNELS: 3 or 4 known at compile time, 0 any number
template <int CHANNELS>
struct Tile {
  static constexpr int ROOM = CHANNELS ? CHANNELS : MOST_CHANNELS;
  Vector left[TILE][HALVES], value[ROOM][TILE][HALVES], middle[TILE][HALVES];
  Mask used[TILE][HALVES], live[TILE][HALVES];
};

template <int CHANNELS>
void blend_tile(const Picture& picture, const Channels& channels,
                const std::vector<Prepared>& prepared, int t, Tile<CHANNELS>& tile) {
  const int count = CHANNELS ? CHANNELS : channels.count();
  const int left = (t % picture.columns()) * TILE, top = (t / picture.columns()) * TILE;
  int alive = HALVES * TILE;
  for (int y = 0; y < TILE; ++y)
    for (int h = 0; h < HALVES; ++h) {
      tile.left[y][h] = Vector{} + 1.0f;
      tile.middle[y][h] = Vector{};
      for (int j = 0; j < count; ++j) tile.value[j][y][h] = Vector{};
      tile.used[y][h] = Mask{} - 1;
      const Vector x = PLACES + (float)(left + LANES * h);
      tile.live[y][h] = top + y < picture.height ? x < (float)picture.width : Mask{};
      alive -= !any(tile.live[y][h]);
    }
  float values[MOST_CHANNELS];
  for (int k = picture.starts[t]; k < picture.starts[t + 1] && alive > 0; ++k) {
    const int64_t id = picture.ids[k];
    const Prepared& s = prepared[id];
    const Rows rows = rows_of(s, top);
    const float right = s.x - left - 0.5f;
    channels.of(id, values);
    for (int y = rows.first; y <= rows.last; ++y) {
      const float dy = s.y - (top + y + 0.5f), high = 0.5f * s.c * dy * dy, tilt = s.b * dy;
      const Rows halves = halves_of(s, dy, right);
      for (int h = halves.first; h <= halves.last; ++h) {
        const Vector dx = (right - (float)(LANES * h)) - PLACES;
        const Vector sigma = (0.5f * s.a * dx + tilt) * dx + high;
        const Mask seen = (sigma >= 0.0f) & (sigma <= s.most) & tile.live[y][h];
        if (!any(seen)) continue;
        const Vector alpha = smaller(Vector{} + LARGEST_ALPHA, s.opacity * exponential(-sigma));
        const Vector before = tile.left[y][h], next = before * (1.0f - alpha);
        const Mask stop = seen & (next <= SMALLEST_TRANSMITTANCE), use = seen & ~stop;
        const Vector weight = use ? alpha * before : Vector{};
        for (int j = 0; j < count; ++j) tile.value[j][y][h] += weight * values[j];
        if (channels.depth) {
          const Mask crosses = use & (before > 0.5f) & (next <= 0.5f);
          tile.middle[y][h] = crosses ? Vector{} + values[3] : tile.middle[y][h];
        }
        tile.left[y][h] = use ? next : before;
        tile.used[y][h] = use ? Mask{} + k : tile.used[y][h];
        if (any(stop)) {
          tile.live[y][h] &= ~stop;
          alive -= !any(tile.live[y][h]);
        }
      }
    }
  }
}

template <int CHANNELS>
void store_tile(const Picture& picture, const Channels& channels, const float* background, int t,
                const Tile<CHANNELS>& tile, const Images& out) {
  const int left = (t % picture.columns()) * TILE, top = (t / picture.columns()) * TILE;
  for (int y = 0; y < TILE && top + y < picture.height; ++y)
    for (int x = 0; x < TILE && left + x < picture.width; ++x) {
      const int h = x / LANES, lane = x % LANES;
      const int64_t pixel = (int64_t)(top + y) * picture.width + left + x;
      const float behind = tile.left[y][h][lane];
      for (int j = 0; j < 3; ++j)
        out.color[3 * pixel + j] =
            tile.value[j][y][h][lane] + (background ? behind * background[j] : 0.0f);
      out.transmittance[pixel] = behind;
      out.last[pixel] = tile.used[y][h][lane];
      if (channels.depth) {
        out.depth[pixel] = tile.value[3 % Tile<CHANNELS>::ROOM][y][h][lane];
        out.median[pixel] = tile.middle[y][h][lane];
      }
      for (int e = 0; !CHANNELS && e < channels.extra_count; ++e)
        out.blended[channels.extra_count * pixel + e] =
            tile.value[3 + channels.depth + e][y][h][lane];
    }
}

template <int CHANNELS>
void blend(const Picture& picture, const Channels& channels, const float* background,
           const std::vector<Prepared>& prepared, const Images& out) {
#pragma omp parallel
  {
    std::vector<Tile<CHANNELS>> tile(1);
#pragma omp for schedule(dynamic, 4)
    for (int t = 0; t < picture.tiles(); ++t) {
      blend_tile<CHANNELS>(picture, channels, prepared, t, tile[0]);
      store_tile<CHANNELS>(picture, channels, background, t, tile[0], out);
    }
  }
}

struct Gradients {
  const float *transmittance;
  const int32_t* last;
  const float *color, *d_transmittance, *depth, *blended;
};

// A slot of a (tile, splat) pair: x y a b c opacity, absolute x y, then a number a channel.
constexpr int SLOT_HEAD = 8;

template <int CHANNELS>
struct BackTile {
  static constexpr int ROOM = CHANNELS ? CHANNELS : MOST_CHANNELS;
  Vector left[TILE][HALVES], behind[TILE][HALVES], d[ROOM][TILE][HALVES];
  Mask used[TILE][HALVES];
};

// Returns the last place of the list that any pixel used.
template <int CHANNELS>
int load_tile(const Picture& picture, const Channels& channels, const float* background, int t,
              const Gradients& in, BackTile<CHANNELS>& tile) {
  const int count = CHANNELS ? CHANNELS : channels.count();
  const int left = (t % picture.columns()) * TILE, top = (t / picture.columns()) * TILE;
  int last = picture.starts[t] - 1;
  for (int y = 0; y < TILE; ++y)
    for (int x = 0; x < TILE; ++x) {
      const int h = x / LANES, lane = x % LANES;
      const bool inside = top + y < picture.height && left + x < picture.width;
      if (!inside) {
        tile.left[y][h][lane] = tile.behind[y][h][lane] = 0.0f;
        tile.used[y][h][lane] = -1;
        for (int j = 0; j < count; ++j) tile.d[j][y][h][lane] = 0.0f;
        continue;
      }
      const int64_t pixel = (int64_t)(top + y) * picture.width + left + x;
      tile.left[y][h][lane] = in.transmittance[pixel];
      tile.used[y][h][lane] = in.last[pixel];
      last = std::max(last, in.last[pixel]);
      float seen = in.d_transmittance ? in.d_transmittance[pixel] : 0.0f;
      for (int j = 0; j < 3; ++j) {
        tile.d[j][y][h][lane] = in.color[3 * pixel + j];
        if (background) seen += in.color[3 * pixel + j] * background[j];
      }
      if (channels.depth)
        tile.d[3 % BackTile<CHANNELS>::ROOM][y][h][lane] = in.depth ? in.depth[pixel] : 0.0f;
      for (int e = 0; !CHANNELS && e < channels.extra_count; ++e)
        tile.d[3 + channels.depth + e][y][h][lane] = in.blended[channels.extra_count * pixel + e];
      tile.behind[y][h][lane] = in.transmittance[pixel] * seen;
    }
  return last;
}

template <int CHANNELS, bool ABSOLUTE>
void blend_tile_backward(const Picture& picture, const Channels& channels, const float* background,
                         const std::vector<Prepared>& prepared, int t, const Gradients& in,
                         BackTile<CHANNELS>& tile, float* slots) {
  const int count = CHANNELS ? CHANNELS : channels.count(), size = SLOT_HEAD + count;
  const int left = (t % picture.columns()) * TILE, top = (t / picture.columns()) * TILE;
  const int last = load_tile<CHANNELS>(picture, channels, background, t, in, tile);
  std::fill(slots + (int64_t)size * picture.starts[t], slots + (int64_t)size * picture.starts[t + 1],
            0.0f);
  float values[MOST_CHANNELS];
  for (int k = last; k >= picture.starts[t]; --k) {
    const int64_t id = picture.ids[k];
    const Prepared& s = prepared[id];
    const Rows rows = rows_of(s, top);
    const float right = s.x - left - 0.5f;
    channels.of(id, values);
    Vector moments[6] = {}, absolute[2] = {}, by_value[BackTile<CHANNELS>::ROOM] = {};
    for (int y = rows.first; y <= rows.last; ++y) {
      const float dy = s.y - (top + y + 0.5f), high = 0.5f * s.c * dy * dy, tilt = s.b * dy;
      const Rows halves = halves_of(s, dy, right);
      for (int h = halves.first; h <= halves.last; ++h) {
        const Vector dx = (right - (float)(LANES * h)) - PLACES;
        const Vector sigma = (0.5f * s.a * dx + tilt) * dx + high;
        const Mask hit = (sigma >= 0.0f) & (sigma <= s.most) & (tile.used[y][h] >= k);
        if (!any(hit)) continue;
        const Vector free = s.opacity * exponential(-sigma);
        const Vector alpha = smaller(Vector{} + LARGEST_ALPHA, free);
        const Vector inverse = 1.0f / (1.0f - alpha);
        const Vector before = hit ? tile.left[y][h] * inverse : tile.left[y][h];
        const Vector weight = hit ? alpha * before : Vector{};
        Vector value = {};
        for (int j = 0; j < count; ++j) {
          value += tile.d[j][y][h] * values[j];
          by_value[j] += weight * tile.d[j][y][h];
        }
        const Vector by_alpha = value * before - tile.behind[y][h] * inverse;
        tile.behind[y][h] += weight * value;
        tile.left[y][h] = before;
        const Mask moves = hit & (free < LARGEST_ALPHA);
        const Vector g = moves ? -by_alpha * alpha : Vector{};
        const Vector gx = g * dx;
        moments[0] += g;
        moments[1] += gx;
        moments[2] += g * dy;
        moments[3] += gx * dx;
        moments[4] += gx * dy;
        moments[5] += g * (dy * dy);
        if (ABSOLUTE) {
          absolute[0] += size_of(g * (s.a * dx + s.b * dy));
          absolute[1] += size_of(g * (s.b * dx + s.c * dy));
        }
      }
    }
    float* slot = slots + (int64_t)size * k;
    const float sx = sum(moments[1]), sy = sum(moments[2]);
    slot[0] = s.a * sx + s.b * sy;
    slot[1] = s.b * sx + s.c * sy;
    slot[2] = 0.5f * sum(moments[3]);
    slot[3] = sum(moments[4]);
    slot[4] = 0.5f * sum(moments[5]);
    slot[5] = -sum(moments[0]) / s.opacity;
    slot[6] = ABSOLUTE ? sum(absolute[0]) : 0.0f;
    slot[7] = ABSOLUTE ? sum(absolute[1]) : 0.0f;
    for (int j = 0; j < count; ++j) slot[SLOT_HEAD + j] = sum(by_value[j]);
  }
}

struct Outputs {
  float *splats, *extras, *absolute;
};

// Adds the slots of each splat in list order: every thread takes a range of splats.
void add_slots(const Picture& picture, const Channels& channels, const float* slots, int64_t splats,
               const Outputs& out) {
  constexpr int64_t RANGES = 16;
  const int64_t pairs = picture.starts[picture.tiles()];
  const int size = SLOT_HEAD + channels.count();
#pragma omp parallel for schedule(static, 1)
  for (int64_t range = 0; range < RANGES; ++range) {
    const int64_t first = splats * range / RANGES, last = splats * (range + 1) / RANGES;
    for (int64_t k = 0; k < pairs; ++k) {
      const int64_t id = picture.ids[k];
      if (id < first || id >= last) continue;
      const float* slot = slots + size * k;
      float* row = out.splats + SPLAT_ROW * id;
      for (int j = 0; j < 6; ++j) row[j] += slot[j];
      for (int j = 0; j < 3 + channels.depth; ++j) row[6 + j] += slot[SLOT_HEAD + j];
      if (out.absolute) {
        out.absolute[2 * id] += slot[6];
        out.absolute[2 * id + 1] += slot[7];
      }
      for (int e = 0; e < channels.extra_count; ++e)
        out.extras[channels.extra_count * id + e] += slot[SLOT_HEAD + 3 + channels.depth + e];
    }
  }
}

template <int CHANNELS, bool ABSOLUTE>
void blend_backward(const Picture& picture, const Channels& channels, const float* background,
                    const std::vector<Prepared>& prepared, const Gradients& in, float* slots) {
#pragma omp parallel
  {
    std::vector<BackTile<CHANNELS>> tile(1);
#pragma omp for schedule(dynamic, 4)
    for (int t = 0; t < picture.tiles(); ++t)
      blend_tile_backward<CHANNELS, ABSOLUTE>(picture, channels, background, prepared, t, in,
                                              tile[0], slots);
  }
}

template <int CHANNELS>
void blend_backward(bool absolute, const Picture& picture, const Channels& channels,
                    const float* background, const std::vector<Prepared>& prepared,
                    const Gradients& in, float* slots) {
  if (absolute)
    blend_backward<CHANNELS, true>(picture, channels, background, prepared, in, slots);
  else
    blend_backward<CHANNELS, false>(picture, channels, background, prepared, in, slots);
}

}  // namespace

// `extras` (splats, extra_count) and `background` (3) may be null. depth: also blend depths and find
// medians; else both pointers may be null.
LG_EXPORT void lg_splat_raster(const float* splats, int64_t count, const float* extras,
                               int extra_count, const float* background, const int32_t* ids,
                               const int32_t* starts, int width, int height, int with_depth,
                               float* color, float* transmittance, int32_t* last, float* depth,
                               float* median, float* blended) {
  const Picture picture{width, height, ids, starts};
  const Channels channels{splats, extras, extra_count, with_depth != 0};
  const std::vector<Prepared> prepared = prepare(splats, count);
  const Images out{color, transmittance, last, depth, median, blended};
  if (channels.count() == 3)
    blend<3>(picture, channels, background, prepared, out);
  else if (channels.count() == 4 && with_depth)
    blend<4>(picture, channels, background, prepared, out);
  else
    blend<0>(picture, channels, background, prepared, out);
}

// Adds to d_splats (splats, 12), d_extras and d_absolute (splats, 2), which begin as zeros; d_absolute,
// d_transmittance and d_depth may be null.
LG_EXPORT void lg_splat_raster_backward(
    const float* splats, int64_t count, const float* extras, int extra_count,
    const float* background, const int32_t* ids, const int32_t* starts, int width, int height,
    int with_depth, const float* transmittance, const int32_t* last, const float* d_color,
    const float* d_transmittance, const float* d_depth, const float* d_blended, float* d_splats,
    float* d_extras, float* d_absolute) {
  const Picture picture{width, height, ids, starts};
  const Channels channels{splats, extras, extra_count, with_depth != 0};
  const std::vector<Prepared> prepared = prepare(splats, count);
  const Gradients in{transmittance, last, d_color, d_transmittance, d_depth, d_blended};
  const int64_t size = SLOT_HEAD + channels.count();
  std::vector<float> slots(size * starts[picture.tiles()]);
  const bool absolute = d_absolute != nullptr;
  if (channels.count() == 3)
    blend_backward<3>(absolute, picture, channels, background, prepared, in, slots.data());
  else if (channels.count() == 4 && with_depth)
    blend_backward<4>(absolute, picture, channels, background, prepared, in, slots.data());
  else
    blend_backward<0>(absolute, picture, channels, background, prepared, in, slots.data());
  add_slots(picture, channels, slots.data(), count, Outputs{d_splats, d_extras, d_absolute});
}
