// For each tile of 16x16 pixels the list of splats that reach it, front to back.
//
// Splats come sorted by depth (`order`: rank -> splat). `splat_count` counts the tiles of each,
// `splat_emit` writes pairs (tile, splat) in rank order, a stable sort by tile follows on the host,
// `splat_ranges` finds where each tile's list begins. One thread = one rank; a box of more than
// LARGE tiles is shared among the lanes of its warp, since one lane with a thousand tiles would hold
// up the other 31. Expected: 2^10 to 2^23 splats of 4 tiles on average. Limited by the exact test,
// 48 bytes of random reads a splat, and the writing of pairs.
// LG_WIDE: 0 for up to 32766 tiles (16-bit keys sort in half the time), else 1.
#include "device.h"
#include "splat_tiles.h"

#ifndef LG_WIDE
#define LG_WIDE 0
#endif

constexpr int BLOCK = 128;
constexpr int LARGE = 8;  // tiles of a box that one lane tests alone
constexpr unsigned WARP = 0xffffffffu;

#if LG_WIDE
typedef int32_t TileKey;
#else
typedef int16_t TileKey;
#endif

__device__ inline void load_row(const float4* __restrict__ splats, int i, float (&row)[12]) {
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    const float4 four = splats[3 * (size_t)i + j];
    row[4 * j] = four.x, row[4 * j + 1] = four.y, row[4 * j + 2] = four.z, row[4 * j + 3] = four.w;
  }
}

// Calls sink.one(tile, splat) for the tiles of a small box, sink.many(owner, hits, tile, splat) with
// all lanes for 32 tiles of a large one. `apart`: neighbours in rank go to different warps, because
// large splats are neighbours in depth, too; else they stay together, which keeps writes together.
template <class Sink>
__device__ inline void for_tiles(const float4* __restrict__ splats,
                                 const int64_t* __restrict__ order, int count, int columns,
                                 int rows, int apart, Sink sink) {
  const int lane = threadIdx.x & 31, thread = blockIdx.x * BLOCK + threadIdx.x;
  const int rank = apart ? lane * (int)(gridDim.x * BLOCK / 32) + thread / 32 : thread;
  lg::TileBox box{0, 0, 0, 0};
  float row[12], reach = 0.0f;
  int id = 0;
  bool seen = rank < count;
  if (seen) {
    id = (int)order[rank];
    load_row(splats, id, row);
    reach = lg::reach_of(row[5]);
    seen = row[5] > 0.0f && lg::tile_box(row, reach, columns, rows, box);
  }
  const int width = box.x1 - box.x0, area = seen ? width * (box.y1 - box.y0) : 0;
  const bool large = area > LARGE;
  sink.begin(rank, count);
  if (!large)
    for (int y = box.y0; y < (area ? box.y1 : box.y0); ++y)
      for (int x = box.x0; x < box.x1; ++x)
        if (lg::reaches_tile(row, reach, x, y)) sink.one(y * columns + x, id);
  for (unsigned left = __ballot_sync(WARP, large); left; left &= left - 1) {
    const int owner = __ffs(left) - 1;
    float shared_row[5];
#pragma unroll
    for (int j = 0; j < 5; ++j) shared_row[j] = __shfl_sync(WARP, row[j], owner);
    const float shared_reach = __shfl_sync(WARP, reach, owner);
    const int x0 = __shfl_sync(WARP, box.x0, owner), y0 = __shfl_sync(WARP, box.y0, owner);
    const int wide = __shfl_sync(WARP, width, owner), tiles = __shfl_sync(WARP, area, owner);
    const int shared_id = __shfl_sync(WARP, id, owner);
    for (int first = 0; first < tiles; first += 32) {
      const int t = first + lane, x = x0 + t % wide, y = y0 + t / wide;
      const bool hit = t < tiles && lg::reaches_tile(shared_row, shared_reach, x, y);
      sink.many(owner, __ballot_sync(WARP, hit), y * columns + x, shared_id);
    }
  }
  sink.end(rank, count);
}

struct Counter {
  int32_t* counts;
  int found;
  __device__ void begin(int, int) { found = 0; }
  __device__ void one(int, int) { ++found; }
  __device__ void many(int owner, unsigned hits, int, int) {
    if ((int)(threadIdx.x & 31) == owner) found += __popc(hits);
  }
  __device__ void end(int rank, int count) {
    if (rank < count) counts[rank] = found;
  }
};

// Every rank writes as many pairs as were counted for it, whatever the test says the second time:
// the rest goes to a tile behind the last, where nobody looks. A place that is not written, or
// written by a neighbour, would hold a splat that does not exist. What exceeds `capacity` is left out:
// the host then has it all written again.
struct Emitter {
  const int32_t* ends;
  TileKey* tiles;
  int32_t* ids;
  int at, end_of_own, capacity, tile_count;
  __device__ void begin(int rank, int count) {
    const bool real = rank < count;
    at = rank == 0 || !real ? 0 : ends[rank - 1];
    if (at < 0) at = capacity;  // more than 2^31 pairs, which the host refuses
    end_of_own = real ? lg::minimum(ends[rank], capacity) : 0;
  }
  __device__ void put(int place, int end_of_list, int tile, int id) {
    if (place < 0 || place >= end_of_list) return;  // below 0: counted beyond 2^31, refused, too
    tiles[place] = (TileKey)tile;
    ids[place] = id;
  }
  __device__ void one(int tile, int id) { put(at++, end_of_own, tile, id); }
  __device__ void many(int owner, unsigned hits, int tile, int id) {
    const int lane = threadIdx.x & 31, first = __shfl_sync(WARP, at, owner);
    const int last = __shfl_sync(WARP, end_of_own, owner);
    if (hits >> lane & 1) put(first + __popc(hits & ((1u << lane) - 1)), last, tile, id);
    if (lane == owner) at += __popc(hits);
  }
  __device__ void end(int, int) {
    for (; at < end_of_own; ++at) put(at, end_of_own, tile_count, 0);
  }
};

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_count(const float4* __restrict__ splats, const int64_t* __restrict__ order, int count,
                int columns, int rows, int apart, int32_t* __restrict__ counts) {
  for_tiles(splats, order, count, columns, rows, apart, Counter{counts, 0});
}
LG_KERNEL(splat_count)

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_emit(const float4* __restrict__ splats, const int64_t* __restrict__ order,
               const int32_t* __restrict__ ends, int count, int columns, int rows, int apart,
               int capacity, TileKey* __restrict__ tiles, int32_t* __restrict__ ids) {
  for_tiles(splats, order, count, columns, rows, apart,
            Emitter{ends, tiles, ids, 0, 0, capacity, columns * rows});
}
LG_KERNEL(splat_emit)

// From sorted tiles and the permutation that sorted them: the splats in that order, and the first
// place of every tile's list (`starts` has one more entry than there are tiles). Pairs of the tile
// behind the last, see Emitter, come after all lists.
extern "C" __global__ void __launch_bounds__(256)
    splat_ranges(const TileKey* __restrict__ tiles, const int64_t* __restrict__ permutation,
                 const int32_t* __restrict__ unsorted, int pairs, int tile_count,
                 int32_t* __restrict__ ids, int32_t* __restrict__ starts) {
  const int k = blockIdx.x * 256 + threadIdx.x;
  if (k >= pairs) return;
  const int tile = tiles[k], before = k ? tiles[k - 1] : -1;
  ids[k] = unsorted[permutation[k]];
  for (int t = before + 1; t <= tile; ++t) starts[t] = k;
  if (k == pairs - 1)
    for (int t = tile + 1; t <= tile_count; ++t) starts[t] = pairs;
}
LG_KERNEL(splat_ranges)
