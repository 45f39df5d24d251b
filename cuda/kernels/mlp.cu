// Small network on tensor cores: fp16 operands, fp32 sums, fp32 weights cast while they are staged.
// One kernel a module, chosen by LG_PASS (0 compiles all): 1 forward, 2 backward, 3 reduction.
//
// Forward: a warp takes LG_TILES tiles of 16 rows; activations never leave its registers.
// Limited by reading x and writing y, then by reading weights from shared memory.
//
// Backward: a block takes tiles of 16 rows a warp. Every warp computes its hidden activations
// again, then walks down: the gradient of a layer's sums (delta) stays in registers for the next
// product and goes to shared memory, in place of the activations it belongs to, where the whole
// block forms delta^T activations. Each warp owns 16x16 pieces of the weight gradients, in
// registers until the block has seen all its tiles; then the block writes its sums to a row of
// `partial`, and mlp_reduce adds the rows in order: no atomics, the same bits every time.
// Weight gradients of layers LG_FIRST..LG_LAST are formed (registers limit how many at a time).
//
// Layout: x (rows, INPUT), y (rows, OUTPUT), weights as in the reference, all contiguous.
#ifndef LG_PASS
#define LG_PASS 0
#endif
#ifndef LG_TILES
#define LG_TILES 2
#endif
#ifndef LG_FIRST
#define LG_FIRST 0
#endif
#ifndef LG_LAST
#define LG_LAST LG_HIDDEN_LAYERS
#endif
#ifndef LG_NEED_X
#define LG_NEED_X 1
#endif
#ifndef LG_AUTO_SCALE
#define LG_AUTO_SCALE 0
#endif
#ifndef LG_BLOCKS  // of the backward on one multiprocessor, which bounds its registers
#define LG_BLOCKS 1
#endif
#include "mlp.h"

namespace mlp {

// ---- forward

template <int TILES>
__device__ inline void output_layer(const uint16_t* layer,
                                    const uint32_t (&a)[TILES][inputs_padded(HIDDEN) / 16][4],
                                    void* y, int first, int rows) {
  const int lane = threadIdx.x & 31;
  LG_UNROLL for (int k = 0; k < OUTPUT_PADDED / 16; ++k) {
    float d[TILES][2][4];
    multiply<HIDDEN, TILES>(layer, k * 16, a, d);
    LG_UNROLL for (int t = 0; t < TILES; ++t) {
      LG_UNROLL for (int h = 0; h < 4; ++h) {  // halves of the tile: columns h / 2, rows h % 2
        const int row = first + t * 16 + lane / 4 + h % 2 * 8;
        const int column = k * 16 + h / 2 * 8 + lane % 4 * 2;
        const float* pair = &d[t][h / 2][h % 2 * 2];
        if (row < rows)
          write_pair<OUTPUT, LG_OUTPUT_HALF>(y, row, column,
                                             make_float2(activate(pair[0]), activate(pair[1])));
      }
    }
  }
}

template <int L, int TILES>
__device__ inline void forward_from(const float* weights, uint16_t* staged,
                                    const uint32_t (&a)[TILES][inputs_padded(L) / 16][4], void* y,
                                    int first, int rows) {
  const uint16_t* layer = layer_weights<L>(weights, staged);
  if constexpr (L == HIDDEN) {
    output_layer<TILES>(layer, a, y, first, rows);
  } else {
    uint32_t next[TILES][WIDTH / 16][4];
    hidden_layer<L, TILES>(layer, a, next);
    forward_from<L + 1, TILES>(weights, staged, next, y, first, rows);
  }
}

// ---- backward

constexpr int FIRST = LG_FIRST, LAST = LG_LAST;
constexpr int ROWS = LG_WARPS * 16;

constexpr bool in_pass(int l) { return l >= FIRST && l <= LAST; }

// Slot l of shared memory: first the inputs of layer l, later the deltas of layer l - 1.
constexpr int slot_stride(int l) {
  return padded(l == 0 ? INPUT : l == LAYERS ? OUTPUT : WIDTH) + PADDING;
}
constexpr int slot_offset(int l) {  // halves, behind the weights
  return STAGED_HALVES + (l == 0 ? 0 : ROWS * (slot_stride(0) + (l - 1) * (WIDTH + PADDING)));
}

// Pieces of 16x16 of a layer's weight gradient, and how many of them a warp owns.
constexpr int pieces(int l) { return outputs_padded(l) / 16 * (inputs_padded(l) / 16); }
constexpr int pieces_per_warp(int l) { return (pieces(l) + LG_WARPS - 1) / LG_WARPS; }
constexpr int sum_offset(int l) {
  return l <= FIRST ? 0 : sum_offset(l - 1) + (in_pass(l - 1) ? pieces_per_warp(l - 1) : 0);
}
constexpr int SUMS = larger(1, sum_offset(LAYERS));

struct Backward {
  const float* weights;
  uint16_t* shared;
  void* dx;
  int first, rows;  // first row of this warp
  float scale, inverse_scale;

  template <int L>
  __device__ uint16_t* own_slot() const {  // this lane's place in the warp's rows of slot L
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    return shared + slot_offset(L) + (warp * 16 + lane / 4) * slot_stride(L) + lane % 4 * 2;
  }

  template <int L>
  __device__ void keep(const uint32_t (&a)[(slot_stride(L) - PADDING) / 16][4]) const {
    uint16_t* slot = own_slot<L>();
    LG_UNROLL for (int k = 0; k < (slot_stride(L) - PADDING) / 16; ++k) {
      LG_UNROLL for (int h = 0; h < 4; ++h)
          *(uint32_t*)(slot + h % 2 * 8 * slot_stride(L) + k * 16 + h / 2 * 8) = a[k][h];
    }
  }
};

// Fills the slots of layer L and above, up to the last hidden layer.
template <int L>
__device__ inline void recompute(const Backward& pass,
                                 const uint32_t (&a)[1][inputs_padded(L) / 16][4]) {
  pass.keep<L>(a[0]);
  if constexpr (L < HIDDEN) {
    uint32_t next[1][WIDTH / 16][4];
    hidden_layer<L, 1>(layer_weights<L>(pass.weights, pass.shared), a, next);
    recompute<L + 1>(pass, next);
  }
}

// Gradient of the last layer's sums for one pair of columns.
__device__ inline uint32_t output_delta(const Backward& pass, const void* grad, const void* y,
                                        int row, int column) {
  if (row >= pass.rows) return 0;
  float2 delta = read_pair<OUTPUT, LG_OUTPUT_HALF>(grad, row, column);
  if (LG_ACTIVATION) {
    const float2 value = read_pair<OUTPUT, LG_OUTPUT_HALF>(y, row, column);
    delta.x *= activation_slope(value.x);
    delta.y *= activation_slope(value.y);
  }
  return pack_finite_half2(delta.x * pass.scale, delta.y * pass.scale);
}

// sums += delta^T inputs of layer L over the block's rows
template <int L>
__device__ inline void add_weight_gradient(const uint16_t* shared, float (&sums)[SUMS][2][4]) {
  constexpr int ACROSS = inputs_padded(L) / 16;
  constexpr bool SAME_COLUMN = LG_WARPS % ACROSS == 0;  // for all pieces of a warp
  const int warp = threadIdx.x / 32;
  const uint16_t* inputs = row_major_row(shared + slot_offset(L), slot_stride(L));
  const uint16_t* deltas = column_major_row(shared + slot_offset(L + 1), slot_stride(L + 1));
#pragma unroll 2
  for (int row = 0; row < ROWS; row += 16) {
    uint32_t a[4], b[4];
    LG_UNROLL for (int i = 0; i < pieces_per_warp(L); ++i) {
      const int piece = warp + i * LG_WARPS;
      if (pieces(L) % LG_WARPS && piece >= pieces(L)) break;
      if (i == 0 || !SAME_COLUMN)
        load_tiles_transposed(b, inputs + row * slot_stride(L) + piece % ACROSS * 16);
      load_tiles_transposed(a, deltas + row * slot_stride(L + 1) + piece / ACROSS * 16);
      mma_pair(sums[sum_offset(L) + i], a, b);
    }
  }
}

// Zero where the activation was cut off by ReLU.
__device__ inline uint32_t mask_half2(uint32_t bits, uint32_t activation) {
  return bits & ((activation & 0x7fffu ? 0xffffu : 0u) |
                 (activation & 0x7fff0000u ? 0xffff0000u : 0u));
}

// Gradient of the inputs of layer L from its delta: the delta of the layer below.
template <int L>
__device__ inline void descend(const Backward& pass,
                               const uint32_t (&delta)[outputs_padded(L) / 16][4],
                               uint32_t (&below)[WIDTH / 16][4]) {
  const uint16_t* layer = layer_weights<L>(pass.weights, pass.shared);
  const uint16_t* slot = pass.own_slot<L>();
  LG_UNROLL for (int k = 0; k < WIDTH / 16; ++k) {
    float d[2][4];
    multiply_transposed<L>(layer, k * 16, delta, d);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const float* pair = &d[h / 2][h % 2 * 2];
      const uint16_t* active = slot + h % 2 * 8 * slot_stride(L) + k * 16 + h / 2 * 8;
      below[k][h] = mask_half2(pack_finite_half2(pair[0], pair[1]), *(const uint32_t*)active);
    }
  }
}

// Layer 0 to the gradient of x.
__device__ inline void write_input_gradient(const Backward& pass,
                                            const uint32_t (&delta)[outputs_padded(0) / 16][4]) {
  const int lane = threadIdx.x & 31;
  const uint16_t* layer = layer_weights<0>(pass.weights, pass.shared);
  LG_UNROLL for (int k = 0; k < INPUT_PADDED / 16; ++k) {
    float d[2][4];
    multiply_transposed<0>(layer, k * 16, delta, d);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const int row = pass.first + lane / 4 + h % 2 * 8;
      const int column = k * 16 + h / 2 * 8 + lane % 4 * 2;
      const float* pair = &d[h / 2][h % 2 * 2];
      if (row < pass.rows)
        write_pair<INPUT, LG_INPUT_HALF>(
            pass.dx, row, column,
            make_float2(pair[0] * pass.inverse_scale, pair[1] * pass.inverse_scale));
    }
  }
}

// From the delta of layer L downwards.
template <int L>
__device__ inline void backward_from(const Backward& pass,
                                     const uint32_t (&delta)[outputs_padded(L) / 16][4],
                                     float (&sums)[SUMS][2][4]) {
  if constexpr (in_pass(L)) {
    __syncthreads();  // the slots of this layer are filled
    add_weight_gradient<L>(pass.shared, sums);
  }
  if constexpr (L > 0 && (L > FIRST || LG_NEED_X)) {
    uint32_t below[WIDTH / 16][4];
    descend<L>(pass, delta, below);
    if constexpr (in_pass(L - 1)) {
      __syncthreads();  // all warps have read slot L
      pass.keep<L>(below);
    }
    backward_from<L - 1>(pass, below, sums);
  } else if constexpr (L == 0 && LG_NEED_X) {
    write_input_gradient(pass, delta);
  }
}

template <int L>
__device__ inline void write_sums(const float (&sums)[SUMS][2][4], float inverse_scale,
                                  float* partial) {
  if constexpr (in_pass(L)) {
    constexpr int ACROSS = inputs_padded(L) / 16;
    const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
    LG_UNROLL for (int i = 0; i < pieces_per_warp(L); ++i) {
      const int piece = warp + i * LG_WARPS;
      LG_UNROLL for (int e = 0; e < 8; ++e) {
        const int out = piece / ACROSS * 16 + lane / 4 + e / 2 % 2 * 8;
        const int in = piece % ACROSS * 16 + e / 4 * 8 + lane % 4 * 2 + e % 2;
        if (piece < pieces(L) && out < outputs(L) && in < inputs(L))
          partial[weight_offset(L) + out * inputs(L) + in] =
              sums[sum_offset(L) + i][e / 4][e % 4] * inverse_scale;
      }
    }
  }
  if constexpr (L > 0) write_sums<L - 1>(sums, inverse_scale, partial);
}

// Power of two that brings the largest gradient to 1024..2047: six octaves below fp16's limit,
// twenty-four above its smallest normal number.
__device__ inline float automatic_scale(float largest) {
  const int exponent = (int)(lg::float_bits(largest) >> 23 & 255);
  if (largest == 0.0f || exponent == 255) return 1.0f;
  const int wanted = 10 + 2 * 127 - exponent;
  return lg::float_from_bits((uint32_t)lg::minimum(wanted, 252) << 23);
}

}  // namespace mlp

#if LG_PASS == 0 || LG_PASS == 1
extern "C" __global__ void __launch_bounds__(mlp::THREADS)
    mlp_forward(const void* __restrict__ x, const float* __restrict__ weights, void* y, int rows) {
  constexpr int STEP = LG_WARPS * LG_TILES * 16;
  LG_DYNAMIC_SHARED(uint16_t, staged);
  mlp::stage_all(weights, staged);
  for (int base = blockIdx.x * STEP; base < rows; base += gridDim.x * STEP) {
    const int first = base + threadIdx.x / 32 * LG_TILES * 16;
    uint32_t a[LG_TILES][mlp::INPUT_PADDED / 16][4];
    LG_UNROLL for (int t = 0; t < LG_TILES; ++t) mlp::load_input(x, first + t * 16, rows, a[t]);
    mlp::forward_from<0, LG_TILES>(weights, staged, a, y, first, rows);
  }
}
LG_KERNEL(mlp_forward)
#endif

#if LG_PASS == 0 || LG_PASS == 2
// grad and y (rows, OUTPUT); largest: one number, a bound of |grad slope|, read if LG_AUTO_SCALE,
// else `scale` is used; dx (rows, INPUT); partial (gridDim.x, WEIGHTS).
extern "C" __global__ void __launch_bounds__(mlp::THREADS, LG_BLOCKS)
    mlp_backward(const void* __restrict__ grad, const void* __restrict__ x,
                 const float* __restrict__ weights, const void* __restrict__ y,
                 const float* __restrict__ largest, void* dx, float* partial, int rows,
                 float scale) {
  using namespace mlp;
  LG_DYNAMIC_SHARED(uint16_t, shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  if (LG_AUTO_SCALE) scale = automatic_scale(*largest);
  Backward pass = {weights, shared, dx, 0, rows, scale, 1.0f / scale};
  float sums[SUMS][2][4];
  LG_UNROLL for (int i = 0; i < SUMS; ++i) {
    LG_UNROLL for (int e = 0; e < 8; ++e) sums[i][e / 4][e % 4] = 0.0f;
  }
  stage_all(weights, shared);
  for (int base = blockIdx.x * ROWS; base < rows; base += gridDim.x * ROWS) {
    pass.first = base + warp * 16;
    uint32_t input[1][INPUT_PADDED / 16][4], delta[OUTPUT_PADDED / 16][4];
    load_input(x, pass.first, rows, input[0]);
    LG_UNROLL for (int k = 0; k < OUTPUT_PADDED / 16; ++k) {
      LG_UNROLL for (int h = 0; h < 4; ++h)
          delta[k][h] = output_delta(pass, grad, y, pass.first + lane / 4 + h % 2 * 8,
                                     k * 16 + h / 2 * 8 + lane % 4 * 2);
    }
    __syncthreads();  // the tile before has been read
    recompute<0>(pass, input);
    if constexpr (in_pass(HIDDEN)) pass.keep<LAYERS>(delta);
    backward_from<HIDDEN>(pass, delta, sums);
  }
  write_sums<HIDDEN>(sums, pass.inverse_scale, partial + (size_t)blockIdx.x * WEIGHTS);
}
LG_KERNEL(mlp_backward)
#endif

#if LG_PASS == 0 || LG_PASS == 3
// gradient[i] = sum over `parts` rows of partial[part][i]; block (32, 8): a column takes eight
// slices of the rows, added in order.
extern "C" __global__ void __launch_bounds__(256)
    mlp_reduce(const float* __restrict__ partial, float* __restrict__ gradient, int parts,
               int weights) {
  __shared__ float slice[8][33];
  const int i = blockIdx.x * 32 + threadIdx.x;
  float sum = 0.0f;
  if (i < weights) {
#pragma unroll 8
    for (int part = threadIdx.y; part < parts; part += 8)
      sum += partial[(size_t)part * weights + i];
  }
  slice[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || i >= weights) return;
  for (int y = 1; y < 8; ++y) sum += slice[y][threadIdx.x];
  gradient[i] = sum;
}
LG_KERNEL(mlp_reduce)
#endif
