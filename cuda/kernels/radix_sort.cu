// Stable radix sort of unsigned keys with 32-bit values, 8 bits a pass, one launch a pass (Adinets and
// Merrill 2022, "Onesweep").
//
// `radix_histogram` counts the digits of all passes at once. `radix_pass`: a block takes the next tile
// of keys, ranks them by digit, publishes its counts and adds up those of the tiles before it as they
// appear (decoupled look-back), then sorts its keys in shared memory and writes them to their places
// in runs of neighbours. Tiles are handed out by a counter,
// so that all tiles before a waiting one are being worked on. Each warp owns a run of neighbouring
// keys and ranks them 32 at a time, in order: that makes it stable.
//
// Memory: keys and values read and written once a pass, runs of 16 keys on average. Expected: 2^10 to
// 2^24 keys. Limited by memory, below 2^18 keys by latency.
// LG_WIDE: 32-bit keys, else 16-bit ones. LG_ITEMS: keys a thread. LG_COUNTED: the number of keys is
// on the device, `counted`, and `count` is the most that there is room for; blocks beyond it end.
#include "device.h"

#ifndef LG_WIDE
#define LG_WIDE 1
#endif
#ifndef LG_ITEMS
#define LG_ITEMS 8
#endif
#ifndef LG_COUNTED
#define LG_COUNTED 0
#endif

constexpr int BLOCK = 256, WARPS = BLOCK / 32, DIGITS = 256, ITEMS = LG_ITEMS;
constexpr int TILE_KEYS = BLOCK * ITEMS, MOST_PASSES = 4;
constexpr unsigned WARP = 0xffffffffu;
// State of a tile's count in the look-back table, in its two highest bits; 0: not there yet.
constexpr uint32_t OF_TILE = 1u << 30, OF_ALL_BEFORE = 2u << 30, VALUE = OF_TILE - 1;

#if LG_WIDE
typedef uint32_t Key;
#else
typedef uint16_t Key;
#endif

__device__ inline int digit_of(Key key, int pass) { return (int)((uint32_t)key >> (8 * pass)) & 255; }

__device__ inline int key_count(const int64_t* counted, int count) {
#if LG_COUNTED
  const int64_t found = *counted;
  return found < count ? (int)found : count;
#else
  (void)counted;
  return count;
#endif
}

// histogram: (passes, 256), zero at the start
extern "C" __global__ void __launch_bounds__(BLOCK)
    radix_histogram(const Key* __restrict__ keys, const int64_t* __restrict__ counted, int most,
                    int passes, int32_t* __restrict__ histogram) {
  const int count = key_count(counted, most);
  __shared__ int32_t counts[MOST_PASSES * DIGITS];
  for (int i = threadIdx.x; i < MOST_PASSES * DIGITS; i += BLOCK) counts[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * BLOCK + threadIdx.x; i < count; i += gridDim.x * BLOCK) {
    const Key key = keys[i];
    for (int pass = 0; pass < passes; ++pass)
      atomicAdd(&counts[pass * DIGITS + digit_of(key, pass)], 1);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < passes * DIGITS; i += BLOCK)
    if (counts[i]) atomicAdd(&histogram[i], counts[i]);
}
LG_KERNEL(radix_histogram)

// Sum of `value` over the threads before this one in the block.
__device__ inline int32_t sum_before(int32_t value, int32_t* warp_sums) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  int32_t sum = value;
  for (int step = 1; step < 32; step *= 2) {
    const int32_t other = __shfl_up_sync(WARP, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  return sum - value;
}

// Keys with this thread's digit in all tiles before: `own` is this tile's number of them.
__device__ inline int32_t look_back(volatile uint32_t* table, int tile, uint32_t own) {
  const int digit = threadIdx.x;
  uint32_t before = 0;
  table[tile * DIGITS + digit] = own | (tile ? OF_TILE : OF_ALL_BEFORE);
  for (int t = tile - 1; t >= 0;) {
    const uint32_t word = table[t * DIGITS + digit];
    if (word < OF_TILE) continue;  // that block is on its way
    before += word & VALUE;
    if (word >= OF_ALL_BEFORE) break;
    --t;
  }
  if (tile) table[tile * DIGITS + digit] = (before + own) | OF_ALL_BEFORE;
  return (int32_t)before;
}

// scratch: histograms (passes, 256), then tickets (passes), then look-back tables (passes, tiles, 256),
// the last two zero at the start. from_places: values are the places of the keys, `values` may be any
// address. keep_keys 0: sorted keys are not needed.
extern "C" __global__ void __launch_bounds__(BLOCK)
    radix_pass(const Key* __restrict__ keys, const int32_t* __restrict__ values,
               const int64_t* __restrict__ counted, int most, int pass, int passes,
               int from_places, int keep_keys, int32_t* __restrict__ scratch,
               Key* __restrict__ keys_out, int32_t* __restrict__ values_out) {
  const int count = key_count(counted, most);
  const int32_t* histogram = scratch + pass * DIGITS;
  int32_t* ticket = scratch + passes * DIGITS + pass;
  uint32_t* table = (uint32_t*)scratch + passes * (DIGITS + 1) + pass * (int)gridDim.x * DIGITS;
  __shared__ int32_t counts[WARPS][DIGITS], shifts[DIGITS], warp_sums[2][WARPS];
  __shared__ uint32_t sorted[TILE_KEYS];  // keys, then values
  __shared__ int shared_tile;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  if (threadIdx.x == 0) shared_tile = atomicAdd(ticket, 1);
  for (int w = 0; w < WARPS; ++w) counts[w][threadIdx.x] = 0;
  __syncthreads();
  const int tile = shared_tile, tile_first = tile * TILE_KEYS;
  if (tile_first >= count) return;  // all threads alike; nobody looks back at it
  const int first = tile_first + warp * 32 * ITEMS + lane;
  const int in_tile = lg::minimum(TILE_KEYS, count - tile_first);
  Key key[ITEMS];
  int32_t place[ITEMS], value[ITEMS];
#pragma unroll
  for (int j = 0; j < ITEMS; ++j) {
    const int i = first + 32 * j;
    key[j] = i < count ? keys[i] : (Key)0;
    value[j] = from_places || i >= count ? i : values[i];
  }
#pragma unroll
  for (int j = 0; j < ITEMS; ++j) {
    const bool real = first + 32 * j < count;
    const int digit = digit_of(key[j], pass);
    const unsigned same = __match_any_sync(WARP, real ? digit : DIGITS);
    const int32_t before = counts[warp][digit];
    __syncwarp();
    const unsigned earlier = same & ((1u << lane) - 1);
    if (real && !earlier) counts[warp][digit] = before + __popc(same);
    __syncwarp();
    place[j] = before + __popc(earlier);
  }
  __syncthreads();
  int32_t own = 0;
  for (int w = 0; w < WARPS; ++w) {
    const int32_t of_warp = counts[w][threadIdx.x];
    counts[w][threadIdx.x] = own;
    own += of_warp;
  }
  const int32_t local = sum_before(own, warp_sums[0]);
  for (int w = 0; w < WARPS; ++w) counts[w][threadIdx.x] += local;
  const int32_t start = sum_before(histogram[threadIdx.x], warp_sums[1]);
  // from a place in the sorted tile to one in the output
  shifts[threadIdx.x] = start + look_back(table, tile, (uint32_t)own) - local;
  __syncthreads();
#pragma unroll
  for (int j = 0; j < ITEMS; ++j) {
    if (first + 32 * j >= count) continue;
    place[j] += counts[warp][digit_of(key[j], pass)];
    sorted[place[j]] = key[j];
  }
  __syncthreads();
  int32_t target[ITEMS];
#pragma unroll
  for (int j = 0; j < ITEMS; ++j) {
    const int i = threadIdx.x + BLOCK * j;
    target[j] = 0;
    if (i >= in_tile) continue;
    const Key moved = (Key)sorted[i];
    target[j] = shifts[digit_of(moved, pass)] + i;
    if (keep_keys) keys_out[target[j]] = moved;
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < ITEMS; ++j)
    if (first + 32 * j < count) sorted[place[j]] = (uint32_t)value[j];
  __syncthreads();
#pragma unroll
  for (int j = 0; j < ITEMS; ++j) {
    const int i = threadIdx.x + BLOCK * j;
    if (i < in_tile) values_out[target[j]] = (int32_t)sorted[i];
  }
}
LG_KERNEL(radix_pass)
