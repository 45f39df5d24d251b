// Keeping an occupancy grid up to date: random numbers, drawing of cells, and where cells lie.
// Grid space and the order of cells: march.h.
#pragma once
#include "scalar.h"

namespace lg {

// No value rises above it, so that a field that once answered infinity is forgotten again.
constexpr float LARGEST_VALUE = 1e4f;

// A bijection of 32 bits that scatters neighbours (the finisher of MurmurHash3).
LG_HD uint32_t scatter_bits(uint32_t x) {
  x ^= x >> 16;
  x *= 0x85ebca6bu;
  x ^= x >> 13;
  x *= 0xc2b2ae35u;
  return x ^ x >> 16;
}

// The `draw`-th random word of sample `index`: the same for any order of work.
LG_HD uint32_t random_word(uint32_t seed, uint32_t index, uint32_t draw) {
  return scatter_bits(scatter_bits(index ^ scatter_bits(seed)) + draw * 0x9e3779b9u);
}

// In [0, 1)
LG_HD float random_unit(uint32_t word) { return (float)(word >> 8) * (1.0f / 16777216.0f); }

// In [0, count)
LG_HD uint32_t random_below(uint32_t word, uint32_t count) {
  return (uint32_t)((uint64_t)word * count >> 32);
}

// Sample `index` of `samples` in the stratum of its own among `cells`: every cell once if there
// are as many samples.
LG_HD uint32_t stratified_cell(uint32_t word, int64_t index, int64_t samples, int64_t cells) {
  const int64_t begin = index * cells / samples;
  const int64_t end = (index + 1) * cells / samples;
  return (uint32_t)begin + random_below(word, end > begin ? (uint32_t)(end - begin) : 1u);
}

LG_HD int32_t count_bits(uint32_t byte) {
  byte = byte - (byte >> 1 & 0x55u);
  byte = (byte & 0x33u) + (byte >> 2 & 0x33u);
  return (int32_t)((byte + (byte >> 4)) & 0x0fu);
}

// Cell that holds set bit number `rank` (from 0) of `bits`; sums[i] counts the bits up to and
// with byte i, and rank is below the last.
LG_HD uint32_t occupied_cell(const uint8_t* bits, const int32_t* sums, int32_t bytes,
                             int32_t rank) {
  int32_t low = 0;
  int32_t high = bytes - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (sums[middle] > rank) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  int32_t skip = rank - (low > 0 ? sums[low - 1] : 0);
  uint32_t bit = 0;
  for (; bit < 7; ++bit) {
    if ((bits[low] >> bit & 1) && skip-- == 0) break;
  }
  return 8u * (uint32_t)low + bit;
}

// A random place in a cell, in grid space
LG_HD void place_in_cell(uint32_t cell, int32_t resolution, uint32_t seed, uint32_t index,
                         float* p) {
  const uint32_t side = (uint32_t)resolution;
  const uint32_t at[3] = {cell % side, cell / side % side, cell / (side * side) % side};
  const float scale = (float)(1u << cell / (side * side * side)) / (float)resolution;
  for (uint32_t a = 0; a < 3; ++a) {
    const float inside = (float)at[a] + random_unit(random_word(seed, index, a + 1));
    p[a] = multiply_add(inside - 0.5f * (float)resolution, scale, 0.5f);
  }
}

// Byte with the 8 cells from x on of row (y, z) of cascade k, from their values
LG_HD uint32_t pack_row(const float* values, float threshold) {
  uint32_t byte = 0;
  for (int bit = 0; bit < 8; ++bit) byte |= (values[bit] > threshold ? 1u : 0u) << bit;
  return byte;
}

// Which of the 8 cells from (x, y, z) on of a cascade hold an occupied cell of the next finer one,
// whose bits are `finer`. That one lies in the middle half along each axis.
LG_HD uint32_t pool_row(const uint8_t* finer, int32_t resolution, int32_t x, int32_t y,
                        int32_t z) {
  const int32_t quarter = resolution / 4;
  const int32_t from[3] = {2 * (x - quarter), 2 * (y - quarter), 2 * (z - quarter)};
  for (int a = 0; a < 3; ++a) {
    if (from[a] < 0 || from[a] >= resolution) return 0;
  }
  uint32_t cells = 0;  // 16 of the finer grid
  for (int row = 0; row < 4; ++row) {
    const int32_t line = (from[2] + row / 2) * resolution + from[1] + row % 2;
    const uint8_t* pair = finer + ((int64_t)line * resolution + from[0]) / 8;
    cells |= (uint32_t)pair[0] | (uint32_t)pair[1] << 8;
  }
  uint32_t byte = 0;
  for (int bit = 0; bit < 8; ++bit) byte |= (cells >> (2 * bit) & 3u ? 1u : 0u) << bit;
  return byte;
}

// Whether the block of 8^3 cells holds an occupied one; `block` counts blocks over all cascades.
LG_HD uint8_t block_occupied(const uint8_t* bits, int32_t resolution, int32_t block) {
  const int32_t blocks = resolution / 8;
  const int32_t x = block % blocks;
  const int32_t y = block / blocks % blocks;
  const int32_t z = block / (blocks * blocks);  // cascades one behind the other
  uint8_t any = 0;
  for (int row = 0; row < 64; ++row) {
    const int64_t line = ((int64_t)8 * z + row / 8) * resolution + 8 * y + row % 8;
    any |= bits[line * blocks + x];
  }
  return any ? 1 : 0;
}

}  // namespace lg
