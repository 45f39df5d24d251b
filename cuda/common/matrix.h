// Tensor-core operands from shared memory: 8x8 tiles of halves, loaded by a whole warp, and the
// fp16 clamps that keep products finite. PTX for a GPU, plain C++ for the emulator.
//
// Fragments of mma16816 (lane = 4 * group + q, group = 0..7, q = 0..3; two halves a register):
//   a[0] row group,     columns 2q, 2q + 1     a[1] row group + 8, the same columns
//   a[2] row group,     columns 2q + 8, + 9    a[3] row group + 8, the same columns
//   b[0] rows 2q, 2q + 1 of column group       b[1] rows 2q + 8, + 9 of column group
//   d[0], d[1] row group, columns 2q, 2q + 1   d[2], d[3] row group + 8
// So two neighbouring d of one layer are, packed, one a of the next.
#pragma once
#include "device.h"

constexpr uint32_t LARGEST_HALF2 = 0x7bff7bffu;   // 65504 twice
constexpr uint32_t SMALLEST_HALF2 = 0xfbfffbffu;  // -65504 twice

#ifdef LG_EMU

namespace lg_emulated {
// Addresses of all lanes' rows, then each lane reads what `pick` says.
template <class Pick>
inline void exchange_rows(const uint16_t* row, Pick pick) {
  const uint64_t address = (uint64_t)row;
  const uint32_t words[2] = {(uint32_t)address, (uint32_t)(address >> 32)};
  emu::exchange(words, 2, [&](auto word) {
    pick([&](int from) {
      return (const uint16_t*)((uint64_t)word(from, 1) << 32 | word(from, 0));
    });
  });
}

inline uint16_t clamp_half(uint16_t bits, float low, float high) {
  const float value = half_to_float(bits);
  return value < low ? float_to_half(low) : value > high ? float_to_half(high) : bits;
}

inline uint32_t clamp_half2(uint32_t bits, float low, float high) {
  return clamp_half((uint16_t)bits, low, high) |
         (uint32_t)clamp_half((uint16_t)(bits >> 16), low, high) << 16;
}
}  // namespace lg_emulated

__device__ inline void load_tiles(uint32_t (&tile)[4], const uint16_t* row) {
  lg_emulated::exchange_rows(row, [&](auto row_of) {
    const int lane = (int)emu::lane();
    for (int m = 0; m < 4; ++m)
      memcpy(&tile[m], row_of(8 * m + lane / 4) + 2 * (lane % 4), 4);
  });
}

__device__ inline void load_tiles_transposed(uint32_t (&tile)[4], const uint16_t* row) {
  lg_emulated::exchange_rows(row, [&](auto row_of) {
    const int lane = (int)emu::lane();
    for (int m = 0; m < 4; ++m) {
      const int first = 8 * m + 2 * (lane % 4);
      tile[m] = row_of(first)[lane / 4] | (uint32_t)row_of(first + 1)[lane / 4] << 16;
    }
  });
}

__device__ inline uint32_t relu_half2(uint32_t bits) {
  return lg_emulated::clamp_half2(bits, 0.0f, 65504.0f);
}

__device__ inline uint32_t finite_half2(uint32_t bits) {
  return lg_emulated::clamp_half2(bits, -65504.0f, 65504.0f);
}

#else

// Four 8x8 tiles. Lane 8 m + i gives the address of row i of tile m (16 bytes, aligned);
// register m receives row lane / 4, columns 2 (lane % 4) and the next of tile m.
__device__ inline void load_tiles(uint32_t (&tile)[4], const uint16_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

// The same tiles transposed: rows 2 (lane % 4) and the next, column lane / 4.
__device__ inline void load_tiles_transposed(uint32_t (&tile)[4], const uint16_t* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(tile[0]), "=r"(tile[1]), "=r"(tile[2]), "=r"(tile[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row)));
}

// Into [low, high]; infinities too. NaN stays NaN, so that broken input is not hidden.
__device__ inline uint32_t clamp_half2(uint32_t bits, uint32_t low, uint32_t high) {
#if __CUDA_ARCH__ >= 800
  asm("max.NaN.f16x2 %0, %0, %1;" : "+r"(bits) : "r"(low));
  asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(bits) : "r"(high));
  return bits;
#else
  const float2 value = unpack_half2(bits), floor = unpack_half2(low), ceiling = unpack_half2(high);
  const float x = value.x < floor.x ? floor.x : value.x > ceiling.x ? ceiling.x : value.x;
  const float y = value.y < floor.y ? floor.y : value.y > ceiling.y ? ceiling.y : value.y;
  return pack_half2(x, y);
#endif
}

__device__ inline uint32_t relu_half2(uint32_t bits) { return clamp_half2(bits, 0, LARGEST_HALF2); }

__device__ inline uint32_t finite_half2(uint32_t bits) {
  return clamp_half2(bits, SMALLEST_HALF2, LARGEST_HALF2);
}

#endif

__device__ inline uint32_t pack_finite_half2(float low, float high) {
  return finite_half2(pack_half2(low, high));
}

// Operand b of two neighbouring products (16 rows, 16 columns: b[0..1] then b[2..3]).
// From a matrix stored [column][row], as weights [out][in] are when rows run over `in`:
__device__ inline const uint16_t* column_major_row(const uint16_t* block, int stride) {
  const int lane = threadIdx.x & 31;
  return block + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
}
// From a matrix stored [row][column], to be loaded transposed:
__device__ inline const uint16_t* row_major_row(const uint16_t* block, int stride) {
  const int lane = threadIdx.x & 31;
  return block + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
}

// d += a b for 16 columns, b from load_tiles.
__device__ inline void mma_pair(float (&d)[2][4], const uint32_t (&a)[4], const uint32_t (&b)[4]) {
  const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
  mma16816(d[0], a, left);
  mma16816(d[1], a, right);
}
