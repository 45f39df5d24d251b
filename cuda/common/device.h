// Device primitives of the .cu kernels. NVRTC gets inline PTX (no CUDA header is needed, so a
// kernel compiles in a fraction of a second); the emulator gets the same functions in plain C++.
//
// Two halves travel as one uint32_t, low half first. `red_*` adds to memory without reading back:
// an atomic of 4 to 16 bytes costs the same, so neighbours are added as one vector. The vector
// forms exist from sm_90 on, and the address must be aligned to the whole vector.
//
// A kernel is declared `extern "C" __global__` and followed by LG_KERNEL(name) for the emulator.
#pragma once
#include "scalar.h"

#ifndef LG_KERNEL
#define LG_KERNEL(name)
#endif

// Shared memory whose size is chosen at launch. The emulator reserves the most a GPU can give.
#ifdef LG_EMU
#define LG_DYNAMIC_SHARED(type, name) alignas(16) static type name[232448 / sizeof(type)]
#else
#define LG_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#endif

#ifdef LG_EMU

__device__ inline float unpack_half(uint16_t bits) { return half_to_float(bits); }
__device__ inline uint16_t pack_half(float value) { return float_to_half(value); }

__device__ inline float2 unpack_half2(uint32_t bits) {
  return make_float2(half_to_float((uint16_t)bits), half_to_float((uint16_t)(bits >> 16)));
}

__device__ inline uint32_t pack_half2(float low, float high) {
  return float_to_half(low) | (uint32_t)float_to_half(high) << 16;
}

__device__ inline void red_float(float* target, float a) { *target += a; }

__device__ inline void red_float2(float2* target, float2 a) {
  target->x += a.x;
  target->y += a.y;
}

__device__ inline void red_float4(float4* target, float2 a, float2 b) {
  target->x += a.x;
  target->y += a.y;
  target->z += b.x;
  target->w += b.y;
}

__device__ inline void red_half2(uint32_t* target, uint32_t a) {
  const float2 old = unpack_half2(*target);
  const float2 add = unpack_half2(a);
  *target = pack_half2(old.x + add.x, old.y + add.y);
}

__device__ inline void mma16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulated_mma(d, a, b);
}

#else

__device__ inline float unpack_half(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ inline uint16_t pack_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

__device__ inline float2 unpack_half2(uint32_t bits) {
  float2 pair;
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
      : "=f"(pair.x), "=f"(pair.y)
      : "r"(bits));
  return pair;
}

__device__ inline uint32_t pack_half2(float low, float high) {
  uint32_t bits;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
#else
  asm("{.reg .b16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b};}"
      : "=r"(bits)
      : "f"(low), "f"(high));
#endif
  return bits;
}

__device__ inline void red_float(float* target, float a) {
  asm volatile("red.global.add.f32 [%0], %1;" ::"l"(target), "f"(a) : "memory");
}

__device__ inline void red_float2(float2* target, float2 a) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(target), "f"(a.x), "f"(a.y)
               : "memory");
#else
  red_float(&target->x, a.x);
  red_float(&target->y, a.y);
#endif
}

__device__ inline void red_float4(float4* target, float2 a, float2 b) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(target), "f"(a.x), "f"(a.y),
               "f"(b.x), "f"(b.y)
               : "memory");
#else
  red_float(&target->x, a.x);
  red_float(&target->y, a.y);
  red_float(&target->z, b.x);
  red_float(&target->w, b.y);
#endif
}

__device__ inline void red_half2(uint32_t* target, uint32_t a) {
  asm volatile("red.global.add.noftz.f16x2 [%0], %1;" ::"l"(target), "r"(a) : "memory");
}

// d += a b for one warp: a is 16x16 row-major, b is 16x8 column-major, d is 16x8 in fp32.
// Before sm_80 two 16x8x8 products: the fragments are the same halves.
__device__ inline void mma16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int k = 0; k < 2; ++k)
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2 * k]), "r"(a[2 * k + 1]), "r"(b[k]));
#endif
}

#endif
