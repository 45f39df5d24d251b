// Entries of a grid table on the GPU: LG_FEATURES values in fp16 (LG_HALF) or fp32, read as whole
// vectors. Corners that differ in x are neighbours in memory for every second cell (hashed: x
// even), so two entries of up to 8 bytes are read, and up to 16 bytes of fp32 gradients added, as
// one aligned pair. Level offsets and sizes are multiples of 8 entries, which keeps pairs aligned.
#pragma once
#include "device.h"
#include "grid.h"

#ifndef LG_FEATURES
#define LG_FEATURES 2
#endif
#ifndef LG_HALF
#define LG_HALF 0
#endif

constexpr int FEATURES = LG_FEATURES;
constexpr int ENTRY_BYTES = FEATURES * (LG_HALF ? 2 : 4);
constexpr int ENTRY_WORDS = ENTRY_BYTES < 4 ? 1 : ENTRY_BYTES / 4;
constexpr bool HALF_WORD = ENTRY_BYTES == 2;  // one fp16 feature: an entry is half a word
constexpr bool PAIRED = ENTRY_BYTES <= 8;
constexpr int PAIR_WORDS = HALF_WORD ? 1 : 2 * ENTRY_WORDS;

template <int WORDS>
__device__ inline void read_words(const uint32_t* source, uint32_t (&word)[WORDS]) {
  if constexpr (WORDS % 4 == 0) {
    LG_UNROLL
    for (int k = 0; k < WORDS; k += 4) {
      const uint4 v = *(const uint4*)(source + k);
      word[k] = v.x;
      word[k + 1] = v.y;
      word[k + 2] = v.z;
      word[k + 3] = v.w;
    }
  } else if constexpr (WORDS % 2 == 0) {
    LG_UNROLL
    for (int k = 0; k < WORDS; k += 2) {
      const uint2 v = *(const uint2*)(source + k);
      word[k] = v.x;
      word[k + 1] = v.y;
    }
  } else {
    LG_UNROLL
    for (int k = 0; k < WORDS; ++k) word[k] = source[k];
  }
}

template <int WORDS>
__device__ inline void write_words(uint32_t* target, const uint32_t (&word)[WORDS]) {
  if constexpr (WORDS % 4 == 0) {
    LG_UNROLL
    for (int k = 0; k < WORDS; k += 4)
      *(uint4*)(target + k) = make_uint4(word[k], word[k + 1], word[k + 2], word[k + 3]);
  } else if constexpr (WORDS % 2 == 0) {
    LG_UNROLL
    for (int k = 0; k < WORDS; k += 2) *(uint2*)(target + k) = make_uint2(word[k], word[k + 1]);
  } else {
    LG_UNROLL
    for (int k = 0; k < WORDS; ++k) target[k] = word[k];
  }
}

// The features that start at place `first` of packed words
template <int WORDS>
__device__ inline void unpack_features(const uint32_t (&word)[WORDS], int first,
                                       float (&feature)[FEATURES]) {
  if constexpr (!LG_HALF) {
    LG_UNROLL
    for (int f = 0; f < FEATURES; ++f) feature[f] = lg::float_from_bits(word[first + f]);
  } else if constexpr (FEATURES == 1) {
    feature[0] = unpack_half((uint16_t)(word[first / 2] >> (16 * (first & 1))));
  } else {
    LG_UNROLL
    for (int f = 0; f < FEATURES; f += 2) {
      const float2 two = unpack_half2(word[(first + f) / 2]);
      feature[f] = two.x;
      feature[f + 1] = two.y;
    }
  }
}

template <int WORDS>
__device__ inline void pack_features(const float (&feature)[FEATURES], int first,
                                     uint32_t (&word)[WORDS]) {
  if constexpr (!LG_HALF) {
    LG_UNROLL
    for (int f = 0; f < FEATURES; ++f) word[first + f] = lg::float_bits(feature[f]);
  } else if constexpr (FEATURES == 1) {
    const uint32_t bits = pack_half(feature[0]);
    word[first / 2] = first & 1 ? word[first / 2] | bits << 16 : bits;
  } else {
    LG_UNROLL
    for (int f = 0; f < FEATURES; f += 2)
      word[(first + f) / 2] = pack_half2(feature[f], feature[f + 1]);
  }
}

struct Entry {
  uint32_t word[ENTRY_WORDS];
};

__device__ inline Entry read_entry(const uint32_t* table, uint32_t index) {
  Entry entry;
  if constexpr (HALF_WORD)
    entry.word[0] = ((const uint16_t*)table)[index];
  else
    read_words<ENTRY_WORDS>(table + (size_t)index * ENTRY_WORDS, entry.word);
  return entry;
}

__device__ inline Entry pick_entry(const uint32_t (&pair)[PAIR_WORDS], bool second) {
  Entry entry;
  if constexpr (HALF_WORD) {
    entry.word[0] = second ? pair[0] >> 16 : pair[0];
  } else {
    LG_UNROLL
    for (int k = 0; k < ENTRY_WORDS; ++k)
      entry.word[k] = second ? pair[ENTRY_WORDS + k] : pair[k];
  }
  return entry;
}

// Features of all corners of a cell; `table` starts at the level. Loads come before their use, so
// that many are under way at once.
template <int CORNERS>
__device__ inline void gather_corners(const uint32_t* table, const uint32_t (&index)[CORNERS],
                                      float (&feature)[CORNERS][FEATURES]) {
  Entry entry[CORNERS];
  if constexpr (PAIRED) {
    uint32_t pair[CORNERS / 2][PAIR_WORDS];
    LG_UNROLL
    for (int e = 0; e < CORNERS / 2; ++e)
      read_words<PAIR_WORDS>(table + (size_t)(index[2 * e] >> 1) * PAIR_WORDS, pair[e]);
    LG_UNROLL
    for (int e = 0; e < CORNERS / 2; ++e) {
      const uint32_t lower = index[2 * e], upper = index[2 * e + 1];
      entry[2 * e + 1] =
          (lower ^ upper) == 1 ? pick_entry(pair[e], upper & 1) : read_entry(table, upper);
      entry[2 * e] = pick_entry(pair[e], lower & 1);
    }
  } else {
    LG_UNROLL
    for (int c = 0; c < CORNERS; ++c) entry[c] = read_entry(table, index[c]);
  }
  LG_UNROLL
  for (int c = 0; c < CORNERS; ++c) unpack_features(entry[c].word, 0, feature[c]);
}

// Features that travel together in fp32 sums: an atomic moves up to 16 bytes at the same cost.
constexpr int LOT = FEATURES < 4 ? FEATURES : 4;

__device__ inline void add_lot(float* target, const float (&a)[LOT]) {
  if constexpr (LOT == 1)
    red_float(target, a[0]);
  else if constexpr (LOT == 2)
    red_float2((float2*)target, make_float2(a[0], a[1]));
  else
    red_float4((float4*)target, make_float2(a[0], a[1]), make_float2(a[2], a[3]));
}

// Adds to the lots at `first` of two entries of the fp32 gradient; as one vector where they are
// an aligned pair.
__device__ inline void add_two(float* table, int first, uint32_t lower, const float (&a)[LOT],
                               uint32_t upper, const float (&b)[LOT]) {
  if constexpr (FEATURES <= 2) {
    if ((lower ^ upper) == 1) {
      const bool swap = lower & 1;
      float* target = table + (size_t)(lower & ~1u) * FEATURES;
      float2 x = make_float2(a[0], a[LOT - 1]), y = make_float2(b[0], b[LOT - 1]);
      if constexpr (FEATURES == 1)
        red_float2((float2*)target, swap ? make_float2(y.x, x.x) : make_float2(x.x, y.x));
      else
        red_float4((float4*)target, swap ? y : x, swap ? x : y);
      return;
    }
  }
  add_lot(table + (size_t)lower * FEATURES + first, a);
  add_lot(table + (size_t)upper * FEATURES + first, b);
}
