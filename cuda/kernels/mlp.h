// The parts of a small network on tensor cores: weights in shared memory, rows of activations in
// registers as mma fragments, one layer after another. Used by mlp.cu.
//
// Weights lie in shared memory as they do in memory, [out][in] in halves, rows padded by 8 halves
// so that the eight rows of a tile fall into different banks; the same copy serves the forward
// (tiles as stored) and the backward (tiles transposed). Inputs and outputs are padded to 16.
//
// With LG_RESIDENT all layers are staged once; otherwise every layer is staged when it is used.
#pragma once
#include "matrix.h"

#ifndef LG_INPUT
#define LG_INPUT 32
#endif
#ifndef LG_WIDTH
#define LG_WIDTH 64
#endif
#ifndef LG_HIDDEN_LAYERS  // 0: one linear layer
#define LG_HIDDEN_LAYERS 2
#endif
#ifndef LG_OUTPUT
#define LG_OUTPUT 16
#endif
#ifndef LG_ACTIVATION  // 0 none, 1 relu, 2 sigmoid, 3 exp, 4 softplus
#define LG_ACTIVATION 0
#endif
#ifndef LG_INPUT_HALF  // x and its gradient are fp16
#define LG_INPUT_HALF 1
#endif
#ifndef LG_OUTPUT_HALF  // y and its gradient are fp16
#define LG_OUTPUT_HALF 1
#endif
#ifndef LG_RESIDENT
#define LG_RESIDENT 1
#endif
#ifndef LG_WARPS
#define LG_WARPS 4
#endif

namespace mlp {

constexpr int padded(int width) { return (width + 15) / 16 * 16; }

constexpr int INPUT = LG_INPUT, WIDTH = LG_WIDTH, OUTPUT = LG_OUTPUT;
constexpr int HIDDEN = LG_HIDDEN_LAYERS;
constexpr int LAYERS = HIDDEN + 1;
constexpr int INPUT_PADDED = padded(INPUT), OUTPUT_PADDED = padded(OUTPUT);
constexpr int THREADS = LG_WARPS * 32;
constexpr int PADDING = 8;  // halves behind every row in shared memory
constexpr float LARGEST_EXPONENT = 15.0f;

static_assert(WIDTH % 16 == 0, "hidden widths are multiples of 16");

// Real and padded widths below and above layer l, and where it starts.
constexpr int inputs(int l) { return l == 0 ? INPUT : WIDTH; }
constexpr int outputs(int l) { return l == HIDDEN ? OUTPUT : WIDTH; }
constexpr int inputs_padded(int l) { return padded(inputs(l)); }
constexpr int outputs_padded(int l) { return padded(outputs(l)); }
constexpr int row_stride(int l) { return inputs_padded(l) + PADDING; }
constexpr int layer_halves(int l) { return outputs_padded(l) * row_stride(l); }

constexpr int weight_offset(int l) {  // in the flat weights
  return l == 0 ? 0 : INPUT * outputs(0) + (l - 1) * WIDTH * WIDTH;
}
constexpr int WEIGHTS = weight_offset(HIDDEN) + inputs(HIDDEN) * OUTPUT;

constexpr int staged_offset(int l) {  // in shared memory, halves
  return l == 0 || !LG_RESIDENT ? 0 : layer_halves(0) + (l - 1) * WIDTH * (WIDTH + PADDING);
}
constexpr int larger(int a, int b) { return a > b ? a : b; }
constexpr int STAGED_HALVES =
    LG_RESIDENT ? staged_offset(HIDDEN) + layer_halves(HIDDEN)
                : larger(larger(layer_halves(0), layer_halves(HIDDEN)),
                         HIDDEN > 1 ? WIDTH * (WIDTH + PADDING) : 0);

#define LG_UNROLL _Pragma("unroll")

// Layer of REAL_OUT x REAL_IN floats to padded halves.
template <int REAL_IN, int REAL_OUT>
__device__ inline void stage_layer(const float* __restrict__ weights, uint16_t* staged) {
  constexpr int PAIRS = padded(REAL_IN) / 2, ROWS = padded(REAL_OUT);
#pragma unroll 4
  for (int i = threadIdx.x; i < ROWS * PAIRS; i += THREADS) {
    const int row = i / PAIRS, column = i % PAIRS * 2;
    const float* source = weights + row * REAL_IN + column;
    const bool exists = row < REAL_OUT;
    const float low = exists && column < REAL_IN ? source[0] : 0.0f;
    const float high = exists && column + 1 < REAL_IN ? source[1] : 0.0f;
    *(uint32_t*)(staged + row * (padded(REAL_IN) + PADDING) + column) =
        pack_finite_half2(low, high);
  }
}

template <int L>
__device__ inline void stage(const float* weights, uint16_t* staged) {
  stage_layer<inputs(L), outputs(L)>(weights + weight_offset(L), staged + staged_offset(L));
}

template <int L>
__device__ inline void stage_from(const float* weights, uint16_t* staged) {
  stage<L>(weights, staged);
  if constexpr (L + 1 < LAYERS) stage_from<L + 1>(weights, staged);
}

// All layers, before the first use; the whole block calls it.
__device__ inline void stage_all(const float* weights, uint16_t* staged) {
  if constexpr (LG_RESIDENT) {
    stage_from<0>(weights, staged);
    __syncthreads();
  }
}

// Where layer L lies; the whole block calls it, right before the layer.
template <int L>
__device__ inline const uint16_t* layer_weights(const float* weights, uint16_t* staged) {
  if constexpr (!LG_RESIDENT) {
    __syncthreads();  // others may still read the layer before
    stage<L>(weights, staged);
    __syncthreads();
  }
  return staged + staged_offset(L);
}

// Sixteen columns, from `column` on, of rows times layer L, for TILES tiles of 16 rows.
template <int L, int TILES>
__device__ inline void multiply(const uint16_t* layer, int column,
                                const uint32_t (&a)[TILES][inputs_padded(L) / 16][4],
                                float (&d)[TILES][2][4]) {
  LG_UNROLL for (int t = 0; t < TILES; ++t) {
    LG_UNROLL for (int e = 0; e < 4; ++e) d[t][0][e] = d[t][1][e] = 0.0f;
  }
  const uint16_t* row = column_major_row(layer + column * row_stride(L), row_stride(L));
  LG_UNROLL for (int k = 0; k < inputs_padded(L) / 16; ++k) {
    uint32_t b[4];
    load_tiles(b, row + k * 16);
    LG_UNROLL for (int t = 0; t < TILES; ++t) mma_pair(d[t], a[t][k], b);
  }
}

// The same for gradients: sixteen inputs of layer L from gradients of its outputs.
template <int L>
__device__ inline void multiply_transposed(const uint16_t* layer, int column,
                                           const uint32_t (&a)[outputs_padded(L) / 16][4],
                                           float (&d)[2][4]) {
  LG_UNROLL for (int e = 0; e < 4; ++e) d[0][e] = d[1][e] = 0.0f;
  const uint16_t* row = row_major_row(layer + column, row_stride(L));
  LG_UNROLL for (int k = 0; k < outputs_padded(L) / 16; ++k) {
    uint32_t b[4];
    load_tiles_transposed(b, row + k * 16 * row_stride(L));
    mma_pair(d, a[k], b);
  }
}

// Hidden layer: its columns become, through ReLU, the operands of the next layer.
template <int L, int TILES>
__device__ inline void hidden_layer(const uint16_t* layer,
                                    const uint32_t (&a)[TILES][inputs_padded(L) / 16][4],
                                    uint32_t (&next)[TILES][WIDTH / 16][4]) {
  LG_UNROLL for (int k = 0; k < WIDTH / 16; ++k) {
    float d[TILES][2][4];
    multiply<L, TILES>(layer, k * 16, a, d);
    LG_UNROLL for (int t = 0; t < TILES; ++t) {
      next[t][k][0] = relu_half2(pack_half2(d[t][0][0], d[t][0][1]));
      next[t][k][1] = relu_half2(pack_half2(d[t][0][2], d[t][0][3]));
      next[t][k][2] = relu_half2(pack_half2(d[t][1][0], d[t][1][1]));
      next[t][k][3] = relu_half2(pack_half2(d[t][1][2], d[t][1][3]));
    }
  }
}

// Columns `column` and `column + 1` of a row of COLUMNS numbers, as floats; 0 beyond the end.
template <int COLUMNS, bool HALF>
__device__ inline float2 read_pair(const void* __restrict__ rows, size_t row, int column) {
  if constexpr (COLUMNS % 2 == 0) {
    if (COLUMNS % 16 && column >= COLUMNS) return make_float2(0.0f, 0.0f);
    const size_t pair = (row * COLUMNS + column) / 2;
    return HALF ? unpack_half2(((const uint32_t*)rows)[pair]) : ((const float2*)rows)[pair];
  } else {
    float value[2];
    LG_UNROLL for (int i = 0; i < 2; ++i) {
      const size_t place = row * COLUMNS + column + i;
      value[i] = column + i >= COLUMNS ? 0.0f
                 : HALF                ? unpack_half(((const uint16_t*)rows)[place])
                                       : ((const float*)rows)[place];
    }
    return make_float2(value[0], value[1]);
  }
}

// The reverse; fp16 results are saturated to finite values.
template <int COLUMNS, bool HALF>
__device__ inline void write_pair(void* __restrict__ rows, size_t row, int column, float2 value) {
  if (COLUMNS % 16 && column >= COLUMNS) return;
  const uint32_t bits = HALF ? pack_finite_half2(value.x, value.y) : 0u;
  const size_t place = row * COLUMNS + column;
  if constexpr (COLUMNS % 2 == 0) {
    if (HALF) ((uint32_t*)rows)[place / 2] = bits;
    else ((float2*)rows)[place / 2] = value;
  } else {
    const bool both = column + 1 < COLUMNS;
    if (HALF) ((uint16_t*)rows)[place] = (uint16_t)bits;
    else ((float*)rows)[place] = value.x;
    if (HALF && both) ((uint16_t*)rows)[place + 1] = (uint16_t)(bits >> 16);
    if (!HALF && both) ((float*)rows)[place + 1] = value.y;
  }
}

// Input pair as halves; rows past the end are zero.
__device__ inline uint32_t input_pair(const void* __restrict__ x, int row, int column, int rows) {
  if (row >= rows) return 0;
  if (LG_INPUT_HALF && INPUT % 16 == 0)
    return ((const uint32_t*)x)[((size_t)row * INPUT + column) / 2];
  const float2 value = read_pair<INPUT, LG_INPUT_HALF>(x, row, column);
  return pack_finite_half2(value.x, value.y);
}

// Operands of the first layer for the 16 rows from `first`.
__device__ inline void load_input(const void* __restrict__ x, int first, int rows,
                                  uint32_t (&a)[INPUT_PADDED / 16][4]) {
  const int lane = threadIdx.x & 31, row = first + lane / 4, column = lane % 4 * 2;
  LG_UNROLL for (int k = 0; k < INPUT_PADDED / 16; ++k) {
    a[k][0] = input_pair(x, row, k * 16 + column, rows);
    a[k][1] = input_pair(x, row + 8, k * 16 + column, rows);
    a[k][2] = input_pair(x, row, k * 16 + column + 8, rows);
    a[k][3] = input_pair(x, row + 8, k * 16 + column + 8, rows);
  }
}

__device__ inline float activate(float x) {
  if (LG_ACTIVATION == 1) return x < 0.0f ? 0.0f : x;
  if (LG_ACTIVATION == 2) return 1.0f / (1.0f + __expf(-x));
  if (LG_ACTIVATION == 3) return __expf(x > LARGEST_EXPONENT ? LARGEST_EXPONENT : x);
  if (LG_ACTIVATION == 4) return (x < 0.0f ? 0.0f : x) + log1pf(__expf(-fabsf(x)));
  return x;
}

// Derivative of the activation as a function of its result.
__device__ inline float activation_slope(float y) {
  if (LG_ACTIVATION == 1) return y > 0.0f ? 1.0f : 0.0f;
  if (LG_ACTIVATION == 2) return y * (1.0f - y);
  if (LG_ACTIVATION == 3) return y;
  if (LG_ACTIVATION == 4) return -expm1f(-y);
  return 1.0f;
}

}  // namespace mlp
