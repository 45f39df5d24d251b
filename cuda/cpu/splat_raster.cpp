// Blends the splats of each tile on the CPU, front to back, and takes gradients back to them.
//
// Half rows of 8 pixels are one vector, 32 of them a tile; of each splat only those are visited that
// its ellipse can reach. All alphas of a splat are found before any is blended: without branches the
// long chains of several half rows overlap, which is worth a third of the time. Gradients go into one
// slot a (tile, splat) pair and are then added up by splat in list order, so that every result is the
// same for any number of threads.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "splat.h"
#include "splat_tiles.h"
#include "vector8.h"

using namespace lg;

namespace {

constexpr int HALVES = 2 * TILE;   // half rows of a tile: h < TILE are the left ones
constexpr int MOST_CHANNELS = 20;  // color, depth, 16 extras

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

inline int row_of(int half) { return half % TILE; }
inline int column_of(int half) { return half < TILE ? 0 : LANES; }

// Where a splat lies in a tile: from its first pixel centre.
struct Placed {
  float x, y;
};

// One bit a half row that the splat can reach.
inline uint32_t reached_halves(const Prepared& s, Placed at) {
  uint32_t bits = 0;
  for (int block = 0; block < TILE; block += LANES) {
    const Vector dy = (at.y - (float)block) - PLACES;
    const Vector room = (2.0f * s.most - s.rest * dy * dy) * s.inverse_a;
    const Vector clamped = room > 0.0f ? room : Vector{};
    Vector reach;
    for (int i = 0; i < LANES; ++i) reach[i] = std::sqrt(clamped[i]);
    reach = reach * 1.001f + 1e-2f;
    const Vector middle = at.x + s.b * s.inverse_a * dy, low = middle - reach, top = middle + reach;
    const Mask inside = (dy <= s.high) & (dy >= -s.high);
    const Mask left = inside & (low <= LANES - 1.0f) & (top >= 0.0f);
    const Mask right = inside & (top >= (float)LANES) & (low <= TILE - 1.0f);
    bits |= bits_of(left) << block | bits_of(right) << (TILE + block);
  }
  return bits;
}

// opacity exp(-sigma) where alpha is at least 1/255, else 0, for the half rows of `bits`. Returns
// their number; `halves` says which they are.
inline int find_alphas(const Prepared& s, Placed at, uint32_t bits, Vector* alphas, int* halves) {
  int count = 0;
  for (; bits; bits &= bits - 1, ++count) {
    const int half = __builtin_ctz(bits);
    const float dy = at.y - row_of(half);
    const Vector dx = (at.x - column_of(half)) - PLACES;
    const Vector sigma = (0.5f * s.a * dx + s.b * dy) * dx + 0.5f * s.c * dy * dy;
    const Vector alpha = s.opacity * exponential(-sigma);
    alphas[count] = (sigma >= 0.0f) & (sigma <= s.most) ? alpha : Vector{};
    halves[count] = half;
  }
  return count;
}

struct Picture {
  int width, height;
  const int32_t *ids, *starts;
  int columns() const { return (width + TILE - 1) / TILE; }
  int tiles() const { return columns() * ((height + TILE - 1) / TILE); }
  Placed corner(int t) const {
    return {(float)(t % columns() * TILE), (float)(t / columns() * TILE)};
  }
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
  Vector left[HALVES], value[HALVES][ROOM], middle[HALVES];
  Mask used[HALVES], live[HALVES];
  uint32_t alive;  // half rows with a live pixel
};

template <int CHANNELS>
void clear_tile(const Picture& picture, int count, Placed corner, Tile<CHANNELS>& tile) {
  tile.alive = 0;
  for (int half = 0; half < HALVES; ++half) {
    tile.left[half] = Vector{} + 1.0f;
    tile.middle[half] = Vector{};
    for (int j = 0; j < count; ++j) tile.value[half][j] = Vector{};
    tile.used[half] = Mask{} - 1;
    const Vector x = PLACES + (corner.x + column_of(half));
    const bool inside = corner.y + row_of(half) < picture.height;
    tile.live[half] = inside ? x < (float)picture.width : Mask{};
    tile.alive |= (uint32_t)(bits_of(tile.live[half]) != 0) << half;
  }
}

template <int CHANNELS>
void blend_tile(const Picture& picture, const Channels& channels,
                const std::vector<Prepared>& prepared, int t, Tile<CHANNELS>& tile) {
  const int count = CHANNELS ? CHANNELS : channels.count();
  const Placed corner = picture.corner(t);
  clear_tile<CHANNELS>(picture, count, corner, tile);
  float values[MOST_CHANNELS];
  Vector alphas[HALVES];
  int halves[HALVES];
  for (int k = picture.starts[t]; k < picture.starts[t + 1] && tile.alive; ++k) {
    const int64_t id = picture.ids[k];
    const Prepared& s = prepared[id];
    const Placed at{s.x - corner.x - 0.5f, s.y - corner.y - 0.5f};
    const int found = find_alphas(s, at, reached_halves(s, at) & tile.alive, alphas, halves);
    channels.of(id, values);
    for (int n = 0; n < found; ++n) {
      const int half = halves[n];
      const Vector alpha = smaller(Vector{} + LARGEST_ALPHA, alphas[n]);
      const Vector before = tile.left[half], next = before * (1.0f - alpha);
      const Mask stop = tile.live[half] & (next <= SMALLEST_TRANSMITTANCE);
      const Mask use = tile.live[half] & ~stop & (alpha > 0.0f);
      const Vector weight = use ? alpha * before : Vector{};
      for (int j = 0; j < count; ++j) tile.value[half][j] += weight * values[j];
      if (channels.depth) {
        const Mask crosses = use & (before > 0.5f) & (next <= 0.5f);
        tile.middle[half] = crosses ? Vector{} + values[3] : tile.middle[half];
      }
      tile.left[half] = use ? next : before;
      tile.used[half] = use ? Mask{} + k : tile.used[half];
      if (bits_of(stop)) {
        tile.live[half] &= ~stop;
        if (!bits_of(tile.live[half])) tile.alive &= ~(1u << half);
      }
    }
  }
}

template <int CHANNELS>
void store_tile(const Picture& picture, const Channels& channels, const float* background, int t,
                const Tile<CHANNELS>& tile, const Images& out) {
  const Placed corner = picture.corner(t);
  const int left = (int)corner.x, top = (int)corner.y;
  for (int y = 0; y < TILE && top + y < picture.height; ++y)
    for (int x = 0; x < TILE && left + x < picture.width; ++x) {
      const int half = x / LANES * TILE + y, lane = x % LANES;
      const int64_t pixel = (int64_t)(top + y) * picture.width + left + x;
      const float behind = tile.left[half][lane];
      for (int j = 0; j < 3; ++j)
        out.color[3 * pixel + j] =
            tile.value[half][j][lane] + (background ? behind * background[j] : 0.0f);
      out.transmittance[pixel] = behind;
      out.last[pixel] = tile.used[half][lane];
      if (channels.depth) {
        out.depth[pixel] = tile.value[half][3 % Tile<CHANNELS>::ROOM][lane];
        out.median[pixel] = tile.middle[half][lane];
      }
      for (int e = 0; !CHANNELS && e < channels.extra_count; ++e)
        out.blended[channels.extra_count * pixel + e] =
            tile.value[half][3 + channels.depth + e][lane];
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
  Vector left[HALVES], behind[HALVES], d[HALVES][ROOM];
  Mask used[HALVES], last[HALVES / LANES];  // last: largest `used` of every half row

  // One bit a half row of which a pixel uses place k.
  uint32_t halves_using(int k) const {
    uint32_t bits = 0;
    for (int i = 0; i < HALVES / LANES; ++i) bits |= bits_of(last[i] >= k) << (LANES * i);
    return bits;
  }
};

// Returns the last place of the list that any pixel used.
template <int CHANNELS>
int load_tile(const Picture& picture, const Channels& channels, const float* background, int t,
              const Gradients& in, BackTile<CHANNELS>& tile) {
  const int count = CHANNELS ? CHANNELS : channels.count();
  const Placed corner = picture.corner(t);
  const int left = (int)corner.x, top = (int)corner.y;
  int last = picture.starts[t] - 1;
  for (int y = 0; y < TILE; ++y)
    for (int x = 0; x < TILE; ++x) {
      const int half = x / LANES * TILE + y, lane = x % LANES;
      if (top + y >= picture.height || left + x >= picture.width) {
        tile.left[half][lane] = tile.behind[half][lane] = 0.0f;
        tile.used[half][lane] = -1;
        for (int j = 0; j < count; ++j) tile.d[half][j][lane] = 0.0f;
        continue;
      }
      const int64_t pixel = (int64_t)(top + y) * picture.width + left + x;
      tile.left[half][lane] = in.transmittance[pixel];
      tile.used[half][lane] = in.last[pixel];
      last = std::max(last, in.last[pixel]);
      float seen = in.d_transmittance ? in.d_transmittance[pixel] : 0.0f;
      for (int j = 0; j < 3; ++j) {
        tile.d[half][j][lane] = in.color[3 * pixel + j];
        if (background) seen += in.color[3 * pixel + j] * background[j];
      }
      if (channels.depth)
        tile.d[half][3 % BackTile<CHANNELS>::ROOM][lane] = in.depth ? in.depth[pixel] : 0.0f;
      for (int e = 0; !CHANNELS && e < channels.extra_count; ++e)
        tile.d[half][3 + channels.depth + e][lane] = in.blended[channels.extra_count * pixel + e];
      tile.behind[half][lane] = in.transmittance[pixel] * seen;
    }
  for (int half = 0; half < HALVES; ++half) {
    int most = -1;
    for (int lane = 0; lane < LANES; ++lane) most = std::max(most, tile.used[half][lane]);
    tile.last[half / LANES][half % LANES] = most;
  }
  return last;
}

// Gradients of one splat from one tile; `slot` is written.
template <int CHANNELS, bool ABSOLUTE>
void blend_splat_backward(const Prepared& s, Placed at, int k, const float* values, int count,
                          BackTile<CHANNELS>& tile, float* slot) {
  Vector free[HALVES], moments[8] = {};  // six, and two absolute sums
  Vector by_value[BackTile<CHANNELS>::ROOM] = {};
  int halves[HALVES];
  const uint32_t bits = reached_halves(s, at) & tile.halves_using(k);
  const int found = find_alphas(s, at, bits, free, halves);
  for (int n = 0; n < found; ++n) {
    const int half = halves[n];
    const Mask hit = (free[n] > 0.0f) & (tile.used[half] >= k);
    if (!bits_of(hit)) continue;
    const Vector alpha = smaller(Vector{} + LARGEST_ALPHA, free[n]);
    const Vector inverse = 1.0f / (1.0f - alpha);
    const Vector before = hit ? tile.left[half] * inverse : tile.left[half];
    const Vector weight = hit ? alpha * before : Vector{};
    Vector value = {};
    for (int j = 0; j < count; ++j) {
      value += tile.d[half][j] * values[j];
      by_value[j] += weight * tile.d[half][j];
    }
    const Vector by_alpha = value * before - tile.behind[half] * inverse;
    tile.behind[half] += weight * value;
    tile.left[half] = before;
    const Mask moves = hit & (free[n] < LARGEST_ALPHA);
    const float dy = at.y - row_of(half);
    const Vector dx = (at.x - column_of(half)) - PLACES;
    const Vector g = moves ? -by_alpha * alpha : Vector{}, gx = g * dx, gy = g * dy;
    moments[0] += g;
    moments[1] += gx;
    moments[2] += gy;
    moments[3] += gx * dx;
    moments[4] += gx * dy;
    moments[5] += gy * dy;
    if (ABSOLUTE) {
      moments[6] += size_of(g * (s.a * dx + s.b * dy));
      moments[7] += size_of(g * (s.b * dx + s.c * dy));
    }
  }
  const Vector m = sums(moments);
  slot[0] = s.a * m[1] + s.b * m[2];
  slot[1] = s.b * m[1] + s.c * m[2];
  slot[2] = 0.5f * m[3];
  slot[3] = m[4];
  slot[4] = 0.5f * m[5];
  slot[5] = -m[0] / s.opacity;
  slot[6] = m[6];
  slot[7] = m[7];
  for (int j = 0; j < count; ++j) slot[SLOT_HEAD + j] = sum(by_value[j]);
}

template <int CHANNELS, bool ABSOLUTE>
void blend_tile_backward(const Picture& picture, const Channels& channels, const float* background,
                         const std::vector<Prepared>& prepared, int t, const Gradients& in,
                         BackTile<CHANNELS>& tile, float* slots) {
  const int count = CHANNELS ? CHANNELS : channels.count(), size = SLOT_HEAD + count;
  const Placed corner = picture.corner(t);
  const int last = load_tile<CHANNELS>(picture, channels, background, t, in, tile);
  const int64_t first = picture.starts[t], end = picture.starts[t + 1];
  std::fill(slots + size * (last + 1), slots + size * end, 0.0f);
  float values[MOST_CHANNELS];
  for (int64_t k = last; k >= first; --k) {
    const int64_t id = picture.ids[k];
    const Prepared& s = prepared[id];
    const Placed at{s.x - corner.x - 0.5f, s.y - corner.y - 0.5f};
    channels.of(id, values);
    blend_splat_backward<CHANNELS, ABSOLUTE>(s, at, (int)k, values, count, tile, slots + size * k);
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
  // every slot is written: no clearing
  const std::unique_ptr<float[]> slots(new float[size * starts[picture.tiles()]]);
  const bool absolute = d_absolute != nullptr;
  if (channels.count() == 3)
    blend_backward<3>(absolute, picture, channels, background, prepared, in, slots.get());
  else if (channels.count() == 4 && with_depth)
    blend_backward<4>(absolute, picture, channels, background, prepared, in, slots.get());
  else
    blend_backward<0>(absolute, picture, channels, background, prepared, in, slots.get());
  add_slots(picture, channels, slots.get(), count, Outputs{d_splats, d_extras, d_absolute});
}
