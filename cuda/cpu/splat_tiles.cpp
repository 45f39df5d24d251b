// Tile lists on the CPU: radix sort of the visible splats by depth, exact tile test, counting sort by
// tile, which keeps the depth order. The result does not depend on the number of threads: groups of
// splats are tested in parallel and their pairs placed in the order of the groups.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "splat.h"
#include "splat_tiles.h"

using namespace lg;

namespace {

constexpr int64_t SMALLEST_GROUP = 1024, MOST_GROUPS = 64;

struct Pair {
  int32_t tile, id;
};

struct Lists {
  std::vector<std::vector<Pair>> groups;
  std::vector<int32_t> firsts;  // (groups, tiles): where a group's pairs of a tile go
  std::vector<int32_t> starts;  // (tiles + 1)
};

// Visible splats, near to far; equal depths keep their order. Depths are positive, so their bits
// sort as integers do.
std::vector<int32_t> by_depth(const float* splats, const float* depths, int64_t count) {
  std::vector<int32_t> ids, other;
  for (int64_t i = 0; i < count; ++i)
    if (splats[SPLAT_ROW * i + 5] > 0.0f) ids.push_back((int32_t)i);
  other.resize(ids.size());
  std::vector<uint32_t> keys(ids.size()), other_keys(ids.size());
  for (size_t k = 0; k < ids.size(); ++k) keys[k] = float_bits(depths[ids[k]]);
  for (int shift = 0; shift < 32; shift += 11) {
    uint32_t places[2049] = {};
    for (uint32_t key : keys) ++places[(key >> shift & 2047) + 1];
    for (int n = 0; n < 2048; ++n) places[n + 1] += places[n];
    for (size_t k = 0; k < ids.size(); ++k) {
      const uint32_t place = places[keys[k] >> shift & 2047]++;
      other[place] = ids[k];
      other_keys[place] = keys[k];
    }
    ids.swap(other);
    keys.swap(other_keys);
  }
  return ids;
}

void find_pairs(const float* splats, const int32_t* ids, int64_t count, int columns, int rows,
                std::vector<Pair>& pairs, int32_t* counts) {
  for (int64_t k = 0; k < count; ++k) {
    const float* row = splats + SPLAT_ROW * (int64_t)ids[k];
    const float reach = reach_of(row[5]);
    TileBox box;
    if (!tile_box(row, reach, columns, rows, box)) continue;
    for (int y = box.y0; y < box.y1; ++y)
      for (int x = box.x0; x < box.x1; ++x) {
        if (!reaches_tile(row, reach, x, y)) continue;
        pairs.push_back({y * columns + x, ids[k]});
        ++counts[y * columns + x];
      }
  }
}

}  // namespace

// Finds all pairs and keeps them; `starts` (tiles + 1) is written. Returns a handle for
// lg_splat_tiles_fill, and the number of pairs, or -1 when there are more than 2^31 - 1.
LG_EXPORT void* lg_splat_tiles(const float* splats, const float* depths, int64_t count, int width,
                               int height, int32_t* starts, int64_t* pair_count) {
  const int columns = (width + TILE - 1) / TILE, rows = (height + TILE - 1) / TILE;
  const int64_t tiles = (int64_t)columns * rows;
  const std::vector<int32_t> ids = by_depth(splats, depths, count);
  const int64_t visible = (int64_t)ids.size();
  const int64_t size = std::max(SMALLEST_GROUP, (visible + MOST_GROUPS - 1) / MOST_GROUPS);
  const int64_t groups = (visible + size - 1) / size;
  Lists* lists = new Lists;
  lists->groups.resize(groups);
  lists->firsts.assign(groups * tiles, 0);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t g = 0; g < groups; ++g)
    find_pairs(splats, ids.data() + g * size, std::min(size, visible - g * size), columns, rows,
               lists->groups[g], lists->firsts.data() + g * tiles);
  int64_t total = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    starts[t] = (int32_t)total;
    for (int64_t g = 0; g < groups; ++g) {
      int32_t& first = lists->firsts[g * tiles + t];
      const int32_t found = first;
      first = (int32_t)total;
      total += found;
    }
  }
  starts[tiles] = (int32_t)total;
  *pair_count = total <= 0x7fffffff ? total : -1;
  return lists;
}

// Writes the splats of all pairs, tile by tile, and frees the handle. `ids` null: only frees.
LG_EXPORT void lg_splat_tiles_fill(void* handle, int64_t tiles, int32_t* ids) {
  Lists* lists = (Lists*)handle;
  if (ids) {
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t g = 0; g < (int64_t)lists->groups.size(); ++g) {
      int32_t* firsts = lists->firsts.data() + g * tiles;
      for (const Pair& pair : lists->groups[g]) ids[firsts[pair.tile]++] = pair.id;
    }
  }
  delete lists;
}
