// For each tile of 16x16 pixels the list of splats that reach it, front to back.
//
// Splats come sorted by depth (`order`: rank -> splat). `splat_count` counts the tiles of each,
// `splat_scan` adds up, `splat_emit` writes pairs (tile, splat) in rank order, which a stable sort by
// tile rearranges (radix_sort.cu), `splat_ranges` finds where each tile's list begins. One thread = one
// rank; a box of more than LARGE tiles is shared among the lanes of its warp, since one lane with a
// thousand tiles would hold up the other 31. Expected: 2^10 to 2^23 splats of 4 tiles on average.
// Limited by the exact test, 48 bytes of random reads a splat, and the writing of pairs.
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
                                 const int32_t* __restrict__ order, int count, int columns,
                                 int rows, int apart, Sink sink) {
  const int lane = threadIdx.x & 31, thread = blockIdx.x * BLOCK + threadIdx.x;
  const int rank = apart ? lane * (int)(gridDim.x * BLOCK / 32) + thread / 32 : thread;
  lg::TileBox box{0, 0, 0, 0};
  float row[12], reach = 0.0f;
  int id = 0;
  bool seen = rank < count;
  if (seen) {
    id = order[rank];
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

// Running sums of counts: `ends[k]` is the sum up to and including k, at most 2^31 - 1; `total` is the
// sum of all. One pass with decoupled look-back, as in radix_sort.cu: a block takes the next 4096
// counts. `table` (blocks) and `ticket` are zero at the start. `total_for_host` is memory of the host.
constexpr int SCAN_BLOCK = 256, SCAN_ITEMS = 16;
constexpr uint64_t OF_BLOCK = 1ull << 62, OF_ALL_BEFORE = 2ull << 62, VALUE = OF_BLOCK - 1;

__device__ inline uint64_t look_back(volatile uint64_t* table, int block, uint64_t own) {
  uint64_t before = 0;
  table[block] = own | (block ? OF_BLOCK : OF_ALL_BEFORE);
  for (int b = block - 1; b >= 0;) {
    const uint64_t word = table[b];
    if (word < OF_BLOCK) continue;
    before += word & VALUE;
    if (word >= OF_ALL_BEFORE) break;
    --b;
  }
  if (block) table[block] = (before + own) | OF_ALL_BEFORE;
  return before;
}

extern "C" __global__ void __launch_bounds__(SCAN_BLOCK)
    splat_scan(const int32_t* __restrict__ counts, int count, uint64_t* __restrict__ table,
               int32_t* __restrict__ ticket, int32_t* __restrict__ ends,
               int64_t* __restrict__ total, int64_t* __restrict__ total_for_host) {
  __shared__ int shared_block;
  __shared__ uint64_t warp_sums[SCAN_BLOCK / 32], shared_before;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) shared_block = atomicAdd(ticket, 1);
  __syncthreads();
  const int block = shared_block;
  const int first = block * SCAN_BLOCK * SCAN_ITEMS + threadIdx.x * SCAN_ITEMS;
  int32_t own[SCAN_ITEMS];
  uint64_t sum = 0;
#pragma unroll
  for (int j = 0; j < SCAN_ITEMS; ++j) {
    own[j] = first + j < count ? counts[first + j] : 0;
    sum += own[j];
  }
  uint64_t up_to = sum;  // over the lanes up to this one
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(WARP, up_to, step);
    if (lane >= step) up_to += other;
  }
  if (lane == 31) warp_sums[warp] = up_to;
  __syncthreads();
  uint64_t before = up_to - sum, of_block = 0;
  for (int w = 0; w < SCAN_BLOCK / 32; ++w) {
    if (w < warp) before += warp_sums[w];
    of_block += warp_sums[w];
  }
  if (threadIdx.x == 0) {
    shared_before = look_back(table, block, of_block);
    if ((block + 1) * SCAN_BLOCK * SCAN_ITEMS >= count)
      *total = *total_for_host = (int64_t)(shared_before + of_block);
  }
  __syncthreads();
  before += shared_before;
#pragma unroll
  for (int j = 0; j < SCAN_ITEMS; ++j) {
    before += own[j];
    if (first + j < count) ends[first + j] = before < 0x7fffffffull ? (int32_t)before : 0x7fffffff;
  }
}
LG_KERNEL(splat_scan)

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
    // no farther than the end: counting on from 2^31 - 1, where `ends` stops, would come round
    at = rank == 0 || !real ? 0 : lg::minimum(ends[rank - 1], capacity);
    end_of_own = real ? lg::minimum(ends[rank], capacity) : 0;
  }
  __device__ void put(int place, int end_of_list, int tile, int id) {
    if (place >= end_of_list) return;
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
    splat_count(const float4* __restrict__ splats, const int32_t* __restrict__ order, int count,
                int columns, int rows, int apart, int32_t* __restrict__ counts) {
  for_tiles(splats, order, count, columns, rows, apart, Counter{counts, 0});
}
LG_KERNEL(splat_count)

extern "C" __global__ void __launch_bounds__(BLOCK)
    splat_emit(const float4* __restrict__ splats, const int32_t* __restrict__ order,
               const int32_t* __restrict__ ends, int count, int columns, int rows, int apart,
               int capacity, TileKey* __restrict__ tiles, int32_t* __restrict__ ids) {
  for_tiles(splats, order, count, columns, rows, apart,
            Emitter{ends, tiles, ids, 0, 0, capacity, columns * rows});
}
LG_KERNEL(splat_emit)

// From the sorted tiles of all pairs the first place of every tile's list (`starts` has one more entry
// than there are tiles). Pairs of the tile behind the last, see Emitter, come after all lists. There
// are `total` pairs, or as many as there was room for.
extern "C" __global__ void __launch_bounds__(256)
    splat_ranges(const TileKey* __restrict__ tiles, const int64_t* __restrict__ total, int room,
                 int tile_count, int32_t* __restrict__ starts) {
  const int64_t found = *total;
  const int pairs = found < room ? (int)found : room;
  const int k = blockIdx.x * 256 + threadIdx.x;
  if (pairs == 0)
    for (int t = k; t <= tile_count; t += gridDim.x * 256) starts[t] = 0;
  if (k >= pairs) return;
  const int tile = tiles[k], before = k ? tiles[k - 1] : -1;
  for (int t = before + 1; t <= tile; ++t) starts[t] = k;
  if (k == pairs - 1)
    for (int t = tile + 1; t <= tile_count; ++t) starts[t] = pairs;
}
LG_KERNEL(splat_ranges)
