// The network's part of signed distances, on tensor cores: fp16 operands, fp32 sums. LG_PASS: 1
// forward, 2 backward, 3 largest gradient (0 compiles all). Letters: reference/surface.py; layouts:
// surface_rows.h.
//
// Forward: a warp takes 16 rows. After the outputs it walks down once more from the top row of the
// last layer to u_0, whose products with the rates of x are the gradient. Everything stays in
// registers. Limited by reading the rows.
//
// Backward: as mlp.cu has it, with two operands side by side in every slot of shared memory: h_k and
// r_k below a layer, c_k and d_k above it. Their products are one sum over twice the rows, which
// gives the weights' gradients of both orders. The slopes of the activation follow from its rounded
// value. Blocks write their sums to rows of `partial`, which mlp_reduce adds in order.
#ifndef LG_PASS
#define LG_PASS 0
#endif
#ifndef LG_SOFTPLUS
#define LG_SOFTPLUS 0
#endif
#ifndef LG_SECOND  // the loss depends on the gradient of the distance
#define LG_SECOND 1
#endif
#ifndef LG_NEED_WEIGHTS
#define LG_NEED_WEIGHTS 1
#endif
#ifndef LG_NEED_X
#define LG_NEED_X 1
#endif
#ifndef LG_HIDDEN_LAYERS
#define LG_HIDDEN_LAYERS 1
#endif
#ifndef LG_BLOCKS  // of the backward on one multiprocessor, which bounds its registers
#define LG_BLOCKS 1
#endif
#include "surface_rows.h"

#define LG_INPUT (ENCODED + 3)
#include "mlp.h"

namespace surface {

using namespace mlp;

constexpr float SHARPNESS = 100.0f;
constexpr int TILES = WIDTH / 16, ROW_TILES = ROW / 16;
static_assert(INPUT_PADDED == ROW && OUTPUT == 16, "rows hold the inputs");

typedef uint32_t Hidden[TILES][4];  // operands of 16 rows: hidden values, or what belongs to them

// Column of the first layer's weights for a column of the rows
__device__ inline int weight_column(int column) {
  return column < ENCODED ? column + 3 : column - ENCODED;
}

__device__ inline void stage_weights(const float* __restrict__ weights, uint16_t* staged) {
  for (int i = threadIdx.x; i < WIDTH * ROW / 2; i += THREADS) {
    const int row = i / (ROW / 2), column = i % (ROW / 2) * 2;
    float pair[2];
    LG_UNROLL for (int k = 0; k < 2; ++k)
        pair[k] = column + k < INPUT ? weights[row * INPUT + weight_column(column + k)] : 0.0f;
    *(uint32_t*)(staged + row * row_stride(0) + column) = pack_finite_half2(pair[0], pair[1]);
  }
  stage_from<1>(weights, staged);
  __syncthreads();
}

// Row and column of pair h (0..3) of piece k in this lane's operands
__device__ inline int pair_row(int h) { return (threadIdx.x & 31) / 4 + h % 2 * 8; }
__device__ inline int pair_column(int k, int h) {
  return k * 16 + h / 2 * 8 + (threadIdx.x & 31) % 4 * 2;
}

template <int PARTS>
__device__ inline size_t pair_place(int row, int part, int column) {
  return (((size_t)row * PARTS + part) * ROW + column) / 2;
}

__device__ inline uint32_t read_input(const uint32_t* __restrict__ inputs, int row, int kind,
                                      int column, int rows) {
  return row < rows ? inputs[pair_place<KINDS>(row, kind, column)] : 0;
}

__device__ inline void load_rows(const uint32_t* __restrict__ inputs, int first, int rows,
                                 uint32_t (&a)[1][ROW_TILES][4]) {
  LG_UNROLL for (int k = 0; k < ROW_TILES; ++k) {
    LG_UNROLL for (int h = 0; h < 4; ++h)
        a[0][k][h] = read_input(inputs, first + pair_row(h), 0, pair_column(k, h), rows);
  }
}

__device__ inline float activation(float z) {
  if (!LG_SOFTPLUS) return z < 0.0f ? 0.0f : z;
  const float t = SHARPNESS * z;
  return ((t < 0.0f ? 0.0f : t) + __logf(1.0f + __expf(-fabsf(t)))) * (1.0f / SHARPNESS);
}

__device__ inline float slope_of(float value) {
  if (!LG_SOFTPLUS) return value > 0.0f ? 1.0f : 0.0f;
  return 1.0f - __expf(-SHARPNESS * value);
}

__device__ inline float2 slopes_of(uint32_t values) {
  const float2 value = unpack_half2(values);
  return make_float2(slope_of(value.x), slope_of(value.y));
}

// What fp16 takes off the positions of this lane's two rows. Without it distances would move in
// steps of 1e-4 grid units.
struct Residual {
  float row[2][3];
};

__device__ inline Residual find_residual(const float* __restrict__ x, int first, int rows) {
  Residual result;
  LG_UNROLL for (int r = 0; r < 2; ++r) {
    const int row = lg::minimum(first + pair_row(r), rows - 1);
    LG_UNROLL for (int d = 0; d < 3; ++d) {
      const float exact = lg::clamp_unit(x[(size_t)row * 3 + d]) - 0.5f;
      result.row[r][d] = exact - unpack_half(pack_half(exact));
    }
  }
  return result;
}

// Adds the first layer's weights times the residuals to its sums at columns `k`.
__device__ inline void add_residual(const uint16_t* staged, int k, const Residual& residual,
                                    float (&d)[2][4]) {
  LG_UNROLL for (int c = 0; c < 4; ++c) {  // of the lane's four columns
    const int column = pair_column(k, c / 2 * 2) + c % 2;
    const uint16_t* weight = staged + column * row_stride(0) + ENCODED;
    LG_UNROLL for (int axis = 0; axis < 3; ++axis) {
      const float value = unpack_half(weight[axis]);
      LG_UNROLL for (int r = 0; r < 2; ++r)
          d[c / 2][r * 2 + c % 2] += value * residual.row[r][axis];
    }
  }
}

// h_(L+1) from h_L
template <int L>
__device__ inline void hidden_values(const uint16_t* staged, const Residual& residual,
                                     const uint32_t (&a)[1][inputs_padded(L) / 16][4],
                                     uint32_t (&next)[1][TILES][4]) {
  LG_UNROLL for (int k = 0; k < TILES; ++k) {
    float d[1][2][4];
    multiply<L, 1>(staged + staged_offset(L), k * 16, a, d);
    if constexpr (L == 0) add_residual(staged, k, residual, d[0]);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const float* pair = &d[0][h / 2][h % 2 * 2];
      next[0][k][h] = pack_finite_half2(activation(pair[0]), activation(pair[1]));
    }
  }
}

// u_H is the top row of the last layer, for every point.
__device__ inline float2 top_pair(const uint16_t* staged, int column) {
  return unpack_half2(*(const uint32_t*)(staged + staged_offset(HIDDEN) + column));
}

// Sums of two rows (this lane's) over a quarter of the columns, to whole sums
__device__ inline void sum_columns(float (&sum)[2][3]) {
  LG_UNROLL for (int r = 0; r < 2; ++r) {
    LG_UNROLL for (int d = 0; d < 3; ++d) {
      sum[r][d] += __shfl_xor_sync(~0u, sum[r][d], 1);
      sum[r][d] += __shfl_xor_sync(~0u, sum[r][d], 2);
    }
  }
}

// sum += the pair's part of (rate of x by each axis) . (gradient by x)
__device__ inline void add_chain(const uint32_t* __restrict__ inputs, int row, int column,
                                 int rows, const float* pair, float (&sum)[3]) {
  LG_UNROLL for (int d = 0; d < 3; ++d) {
    const float2 rate =
        unpack_half2(read_input(inputs, row, LG_RATES ? 1 + d : 0, column, rows));
    sum[d] += rate.x * pair[0] + rate.y * pair[1];
  }
}

__device__ inline void write_position(float* target, int first, int rows, float (&sum)[2][3],
                                      float factor) {
  sum_columns(sum);
  const int axis = (threadIdx.x & 31) % 4;
  LG_UNROLL for (int r = 0; r < 2; ++r) {
    const int row = first + pair_row(r);
    const float value = axis == 0 ? sum[r][0] : axis == 1 ? sum[r][1] : sum[r][2];
    if (axis < 3 && row < rows) target[(size_t)row * 3 + axis] = value * factor;
  }
}

// ---- forward

struct Results {
  float *distance, *feature, *gradient;
  float bias;
  int first, rows;
  Residual residual;
};

__device__ inline void write_outputs(const uint16_t* staged, const Results& out,
                                     const uint32_t (&a)[1][TILES][4]) {
  float d[1][2][4];
  multiply<HIDDEN, 1>(staged + staged_offset(HIDDEN), 0, a, d);
  LG_UNROLL for (int h = 0; h < 4; ++h) {
    const int row = out.first + pair_row(h), column = pair_column(0, h);
    const float* pair = &d[0][h / 2][h % 2 * 2];
    if (row >= out.rows) continue;
    if (column == 0) out.distance[row] = pair[0] + out.bias;
    if (LG_RATES)
      *(float2*)(out.feature + (size_t)row * 16 + column) = make_float2(pair[0], pair[1]);
  }
}

// From d_L, the gradient of the distance by the sums of layer L, down to the position.
template <int L>
__device__ inline void write_gradient(const uint16_t* staged, const uint32_t* inputs,
                                      const Results& out, const Hidden (&values)[HIDDEN],
                                      const Hidden& delta) {
  if constexpr (L > 0) {
    Hidden below;
    LG_UNROLL for (int k = 0; k < TILES; ++k) {
      float d[2][4];
      multiply_transposed<L>(staged + staged_offset(L), k * 16, delta, d);
      LG_UNROLL for (int h = 0; h < 4; ++h) {
        const float* pair = &d[h / 2][h % 2 * 2];
        const float2 slope = slopes_of(values[L - 1][k][h]);
        below[k][h] = pack_finite_half2(pair[0] * slope.x, pair[1] * slope.y);
      }
    }
    write_gradient<L - 1>(staged, inputs, out, values, below);
  } else {
    float sum[2][3] = {};
    LG_UNROLL for (int k = 0; k < ROW_TILES; ++k) {
      float d[2][4];
      multiply_transposed<0>(staged, k * 16, delta, d);
      LG_UNROLL for (int h = 0; h < 4; ++h)
          add_chain(inputs, out.first + pair_row(h), pair_column(k, h), out.rows,
                    &d[h / 2][h % 2 * 2], sum[h % 2]);
    }
    write_position(out.gradient, out.first, out.rows, sum, 1.0f);
  }
}

__device__ inline void top_delta(const uint16_t* staged, const Hidden& values, Hidden& delta) {
  LG_UNROLL for (int k = 0; k < TILES; ++k) {
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const float2 top = top_pair(staged, pair_column(k, h)), slope = slopes_of(values[k][h]);
      delta[k][h] = pack_finite_half2(top.x * slope.x, top.y * slope.y);
    }
  }
}

// `values` collects h_1 .. h_H.
template <int L>
__device__ inline void forward_from(const uint16_t* staged, const uint32_t* inputs,
                                    const Results& out,
                                    const uint32_t (&a)[1][inputs_padded(L) / 16][4],
                                    Hidden (&values)[HIDDEN]) {
  if constexpr (L < HIDDEN) {
    uint32_t next[1][TILES][4];
    hidden_values<L>(staged, out.residual, a, next);
    LG_UNROLL for (int k = 0; k < TILES; ++k) {
      LG_UNROLL for (int h = 0; h < 4; ++h) values[L][k][h] = next[0][k][h];
    }
    forward_from<L + 1>(staged, inputs, out, next, values);
  } else {
    write_outputs(staged, out, a);
    if constexpr (LG_RATES) {
      Hidden delta;
      top_delta(staged, values[HIDDEN - 1], delta);
      write_gradient<HIDDEN - 1>(staged, inputs, out, values, delta);
    }
  }
}

// ---- backward

constexpr int ROWS = LG_WARPS * 16;
constexpr int PARTS = LG_SECOND ? 2 : 1;

// Slot l of shared memory: h_l and r_l, later c_(l-1) and d_(l-1); the last one holds the gradient
// by the outputs and the unit vector of the first.
constexpr int slot_stride(int l) { return (l == 0 ? ROW : l == LAYERS ? 16 : WIDTH) + PADDING; }
constexpr int slot_offset(int l) {  // halves, behind the weights
  return STAGED_HALVES +
         (l == 0 ? 0 : PARTS * ROWS * (slot_stride(0) + (l - 1) * (WIDTH + PADDING)));
}

// Pieces of 16x16 of a layer's weight gradient, and how many of them a warp owns.
constexpr int pieces(int l) { return outputs_padded(l) / 16 * (inputs_padded(l) / 16); }
constexpr int pieces_per_warp(int l) { return (pieces(l) + LG_WARPS - 1) / LG_WARPS; }
constexpr int sum_offset(int l) { return l == 0 ? 0 : sum_offset(l - 1) + pieces_per_warp(l - 1); }
constexpr int SUMS = sum_offset(LAYERS);

struct Backward {
  uint16_t* shared;  // weights, then slots
  const uint32_t* inputs;
  uint32_t* slopes;
  float* by_x;
  int first, rows;  // first row of this warp
  float scale, inverse_scale;

  template <int L>
  __device__ uint32_t* slot(int part, int k, int h) const {
    const int row = part * ROWS + threadIdx.x / 32 * 16 + pair_row(h);
    return (uint32_t*)(shared + slot_offset(L) + row * slot_stride(L) + pair_column(k, h));
  }

  template <int L>
  __device__ void keep(int part, const uint32_t (&a)[(slot_stride(L) - PADDING) / 16][4]) const {
    LG_UNROLL for (int k = 0; k < (slot_stride(L) - PADDING) / 16; ++k) {
      LG_UNROLL for (int h = 0; h < 4; ++h) *slot<L>(part, k, h) = a[k][h];
    }
  }
};

// Fills the first part of slot L and of those above, up to h_H.
template <int L>
__device__ inline void keep_values(const Backward& pass, const Residual& residual,
                                   const uint32_t (&a)[1][inputs_padded(L) / 16][4]) {
  pass.keep<L>(0, a[0]);
  if constexpr (L < HIDDEN) {
    uint32_t next[1][TILES][4];
    hidden_values<L>(pass.shared, residual, a, next);
    keep_values<L + 1>(pass, residual, next);
  }
}

// The second part: r_L and those above.
template <int L>
__device__ inline void keep_rates(const Backward& pass,
                                  const uint32_t (&a)[1][inputs_padded(L) / 16][4]) {
  pass.keep<L>(1, a[0]);
  if constexpr (L < HIDDEN) {
    uint32_t next[1][TILES][4];
    LG_UNROLL for (int k = 0; k < TILES; ++k) {
      float d[1][2][4];
      multiply<L, 1>(pass.shared + staged_offset(L), k * 16, a, d);
      LG_UNROLL for (int h = 0; h < 4; ++h) {
        const float* pair = &d[0][h / 2][h % 2 * 2];
        const float2 slope = slopes_of(*pass.slot<L + 1>(0, k, h));
        next[0][k][h] = pack_finite_half2(pair[0] * slope.x, pair[1] * slope.y);
      }
    }
    keep_rates<L + 1>(pass, next);
  }
}

// r_0: the rate of x along the gradient of the loss by the distance's gradient, scaled.
__device__ inline void load_along(const Backward& pass, const float* __restrict__ along,
                                  uint32_t (&a)[1][ROW_TILES][4]) {
  float direction[2][3];
  LG_UNROLL for (int r = 0; r < 2; ++r) {
    const int row = pass.first + pair_row(r);
    LG_UNROLL for (int d = 0; d < 3; ++d)
        direction[r][d] = row < pass.rows ? along[(size_t)row * 3 + d] * pass.scale : 0.0f;
  }
  LG_UNROLL for (int k = 0; k < ROW_TILES; ++k) {
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      float low = 0.0f, high = 0.0f;
      LG_UNROLL for (int d = 0; d < 3; ++d) {
        const float2 rate = unpack_half2(read_input(pass.inputs, pass.first + pair_row(h), 1 + d,
                                                    pair_column(k, h), pass.rows));
        low += rate.x * direction[h % 2][d];
        high += rate.y * direction[h % 2][d];
      }
      a[0][k][h] = pack_finite_half2(low, high);
    }
  }
}

// u_1 .. u_(H-1); u_H is known.
struct Ahead {
  Hidden value[HIDDEN > 1 ? HIDDEN - 1 : 1];

  template <int L>
  __device__ float2 pair(const uint16_t* staged, int k, int h) const {  // of u_L
    if constexpr (L == HIDDEN) return top_pair(staged, pair_column(k, h));
    else return unpack_half2(value[L - 1][k][h]);
  }
};

// d_L = u_(L+1) s'
template <int L>
__device__ inline void delta_of(const Backward& pass, const Ahead& ahead, Hidden& delta) {
  LG_UNROLL for (int k = 0; k < TILES; ++k) {
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const float2 above = ahead.pair<L + 1>(pass.shared, k, h);
      const float2 slope = slopes_of(*pass.slot<L + 1>(0, k, h));
      delta[k][h] = pack_finite_half2(above.x * slope.x, above.y * slope.y);
    }
  }
}

// u_L and those below; u_0 goes to memory.
template <int L>
__device__ inline void find_ahead(const Backward& pass, Ahead& ahead) {
  Hidden delta;
  delta_of<L>(pass, ahead, delta);
  LG_UNROLL for (int k = 0; k < inputs_padded(L) / 16; ++k) {
    float d[2][4];
    multiply_transposed<L>(pass.shared + staged_offset(L), k * 16, delta, d);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const uint32_t bits = pack_finite_half2(d[h / 2][h % 2 * 2], d[h / 2][h % 2 * 2 + 1]);
      const int row = pass.first + pair_row(h);
      if constexpr (L > 0) ahead.value[L - 1][k][h] = bits;
      else if (row < pass.rows) pass.slopes[pair_place<2>(row, 1, pair_column(k, h))] = bits;
    }
  }
  if constexpr (L > 0) find_ahead<L - 1>(pass, ahead);
}

// sums += (upper operands)^T (lower operands) of layer L over the block's rows, both parts
template <int L>
__device__ inline void add_weight_gradient(const uint16_t* shared, float (&sums)[SUMS][2][4]) {
  constexpr int ACROSS = inputs_padded(L) / 16;
  const int warp = threadIdx.x / 32;
  const uint16_t* lower = row_major_row(shared + slot_offset(L), slot_stride(L));
  const uint16_t* upper = column_major_row(shared + slot_offset(L + 1), slot_stride(L + 1));
#pragma unroll 2
  for (int row = 0; row < PARTS * ROWS; row += 16) {
    LG_UNROLL for (int i = 0; i < pieces_per_warp(L); ++i) {
      uint32_t a[4], b[4];
      const int piece = warp + i * LG_WARPS;
      if (pieces(L) % LG_WARPS && piece >= pieces(L)) break;
      load_tiles_transposed(b, lower + row * slot_stride(L) + piece % ACROSS * 16);
      load_tiles_transposed(a, upper + row * slot_stride(L + 1) + piece / ACROSS * 16);
      mma_pair(sums[sum_offset(L) + i], a, b);
    }
  }
}

// c_(L-1) from the gradient by h_L; its slot still holds h_L and r_L.
template <int L>
__device__ inline void descend(const Backward& pass, const Ahead& ahead,
                               const uint32_t (&delta)[outputs_padded(L) / 16][4], Hidden& below) {
  LG_UNROLL for (int k = 0; k < TILES; ++k) {
    float d[2][4];
    multiply_transposed<L>(pass.shared + staged_offset(L), k * 16, delta, d);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const float* pair = &d[h / 2][h % 2 * 2];
      const float2 slope = slopes_of(*pass.slot<L>(0, k, h));
      float low = pair[0] * slope.x, high = pair[1] * slope.y;
      if (LG_SECOND && LG_SOFTPLUS) {
        const float2 above = ahead.pair<L>(pass.shared, k, h);
        const float2 rate = unpack_half2(*pass.slot<L>(PARTS - 1, k, h));
        low += SHARPNESS * (1.0f - slope.x) * above.x * rate.x;
        high += SHARPNESS * (1.0f - slope.y) * above.y * rate.y;
      }
      below[k][h] = pack_finite_half2(low, high);
    }
  }
}

// e_0 to memory, and through the rates of x to the position
__device__ inline void write_input_gradient(const Backward& pass, const Hidden& delta) {
  float sum[2][3] = {};
  LG_UNROLL for (int k = 0; k < ROW_TILES; ++k) {
    float d[2][4];
    multiply_transposed<0>(pass.shared, k * 16, delta, d);
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const int row = pass.first + pair_row(h), column = pair_column(k, h);
      const float* pair = &d[h / 2][h % 2 * 2];
      if (row < pass.rows)
        pass.slopes[pair_place<2>(row, 0, column)] = pack_finite_half2(pair[0], pair[1]);
      if (LG_NEED_X) add_chain(pass.inputs, row, column, pass.rows, pair, sum[h % 2]);
    }
  }
  if (LG_NEED_X) write_position(pass.by_x, pass.first, pass.rows, sum, pass.inverse_scale);
}

// From c_L downwards.
template <int L>
__device__ inline void backward_from(const Backward& pass, const Ahead& ahead,
                                     const uint32_t (&delta)[outputs_padded(L) / 16][4],
                                     float (&sums)[SUMS][2][4]) {
  if constexpr (LG_NEED_WEIGHTS) {
    __syncthreads();  // the slots of this layer are filled
    add_weight_gradient<L>(pass.shared, sums);
  }
  if constexpr (L > 0) {
    Hidden below, tilt;
    descend<L>(pass, ahead, delta, below);
    if constexpr (LG_NEED_WEIGHTS) {
      if constexpr (LG_SECOND) delta_of<L - 1>(pass, ahead, tilt);
      __syncthreads();  // all warps have read slot L
      pass.keep<L>(0, below);
      if constexpr (LG_SECOND) pass.keep<L>(1, tilt);
    }
    backward_from<L - 1>(pass, ahead, below, sums);
  } else {
    write_input_gradient(pass, delta);
  }
}

template <int L>
__device__ inline void write_sums(const float (&sums)[SUMS][2][4], float inverse_scale,
                                  float* partial) {
  constexpr int ACROSS = inputs_padded(L) / 16;
  const int lane = threadIdx.x & 31, warp = threadIdx.x / 32;
  LG_UNROLL for (int i = 0; i < pieces_per_warp(L); ++i) {
    const int piece = warp + i * LG_WARPS;
    LG_UNROLL for (int e = 0; e < 8; ++e) {
      const int out = piece / ACROSS * 16 + lane / 4 + e / 2 % 2 * 8;
      const int in = piece % ACROSS * 16 + e / 4 * 8 + lane % 4 * 2 + e % 2;
      if (piece < pieces(L) && in < inputs(L))
        partial[weight_offset(L) + out * inputs(L) + (L ? in : weight_column(in))] =
            sums[sum_offset(L) + i][e / 4][e % 4] * inverse_scale;
    }
  }
  if constexpr (L > 0) write_sums<L - 1>(sums, inverse_scale, partial);
}

enum Given { BY_DISTANCE = 1, BY_FEATURE = 2 };

// Gradient by the outputs of one pair of columns, scaled
__device__ inline uint32_t output_gradient(const Backward& pass, const float* by_distance,
                                           const float* by_feature, int given, int row,
                                           int column) {
  if (row >= pass.rows) return 0;
  float2 pair = make_float2(0.0f, 0.0f);
  if (given & BY_FEATURE) pair = *(const float2*)(by_feature + (size_t)row * 16 + column);
  if (given & BY_DISTANCE && column == 0) pair.x += by_distance[row];
  return pack_finite_half2(pair.x * pass.scale, pair.y * pass.scale);
}

}  // namespace surface

#if LG_PASS == 0 || LG_PASS == 1
// x (rows, 3). Without LG_RATES only distance is written.
extern "C" __global__ void __launch_bounds__(mlp::THREADS)
    surface_forward(const float* __restrict__ x, const uint32_t* __restrict__ inputs,
                    const float* __restrict__ weights, float* distance, float* feature,
                    float* gradient, float bias, int rows) {
  using namespace surface;
  LG_DYNAMIC_SHARED(uint16_t, staged);
  stage_weights(weights, staged);
  for (int base = blockIdx.x * ROWS; base < rows; base += gridDim.x * ROWS) {
    const int first = base + threadIdx.x / 32 * 16;
    const Results out = {distance, feature, gradient, bias, first, rows,
                         find_residual(x, first, rows)};
    uint32_t a[1][ROW_TILES][4];
    Hidden values[HIDDEN];
    load_rows(inputs, first, rows, a);
    forward_from<0>(staged, inputs, out, a, values);
  }
}
LG_KERNEL(surface_forward)
#endif

#if LG_PASS == 0 || LG_PASS == 2
// x (rows, 3); by_distance (rows), by_feature (rows, 16): read as `given` says; along (rows, 3): if LG_SECOND;
// largest: one number, a bound of all of these. Writes slopes, by_x (rows, 3) if LG_NEED_X, and
// partial (gridDim.x, WEIGHTS) if LG_NEED_WEIGHTS.
extern "C" __global__ void __launch_bounds__(mlp::THREADS, LG_BLOCKS)
    surface_backward(const float* __restrict__ x, const uint32_t* __restrict__ inputs,
                     const float* __restrict__ weights,
                     const float* __restrict__ by_distance, const float* __restrict__ by_feature,
                     const float* __restrict__ along, const float* __restrict__ largest,
                     uint32_t* slopes, float* by_x, float* partial, int given, int rows) {
  using namespace surface;
  LG_DYNAMIC_SHARED(uint16_t, shared);
  const float scale = scale_for(*largest);
  Backward pass = {shared, inputs, slopes, by_x, 0, rows, scale, 1.0f / scale};
  float sums[SUMS][2][4];
  LG_UNROLL for (int i = 0; i < SUMS; ++i) {
    LG_UNROLL for (int e = 0; e < 8; ++e) sums[i][e / 4][e % 4] = 0.0f;
  }
  stage_weights(weights, shared);
  for (int base = blockIdx.x * ROWS; base < rows; base += gridDim.x * ROWS) {
    pass.first = base + threadIdx.x / 32 * 16;
    uint32_t a[1][ROW_TILES][4], delta[1][4], unit[1][4];
    Ahead ahead;
    LG_UNROLL for (int h = 0; h < 4; ++h) {
      const int column = pair_column(0, h);
      delta[0][h] = output_gradient(pass, by_distance, by_feature, given,
                                    pass.first + pair_row(h), column);
      unit[0][h] = column == 0 ? 0x3c00u : 0u;  // 1 and 0
    }
    load_rows(inputs, pass.first, rows, a);
    __syncthreads();  // the tile before has been read
    keep_values<0>(pass, find_residual(x, pass.first, rows), a);
    pass.keep<LAYERS>(0, delta);
    if constexpr (LG_SECOND) {
      pass.keep<LAYERS>(1, unit);
      load_along(pass, along, a);
      keep_rates<0>(pass, a);
      find_ahead<HIDDEN - 1>(pass, ahead);
    }
    backward_from<HIDDEN>(pass, ahead, delta, sums);
  }
  if (LG_NEED_WEIGHTS)
    write_sums<HIDDEN>(sums, pass.inverse_scale, partial + (size_t)blockIdx.x * WEIGHTS);
}
LG_KERNEL(surface_backward)
#endif

#if LG_PASS == 0 || LG_PASS == 3
// largest = max of the sizes of three arrays, as bits of a float that begins as 0
extern "C" __global__ void __launch_bounds__(256)
    surface_largest(const float* __restrict__ a, const float* __restrict__ b,
                    const float* __restrict__ c, int* largest, int a_count, int b_count,
                    int c_count) {
  const float* array[3] = {a, b, c};
  const int count[3] = {a_count, b_count, c_count};
  int most = 0;
  LG_UNROLL for (int k = 0; k < 3; ++k) {
    for (int i = blockIdx.x * 256 + threadIdx.x; i < count[k]; i += gridDim.x * 256)
      most = max(most, (int)(lg::float_bits(array[k][i]) & 0x7fffffffu));
  }
  for (int step = 16; step; step /= 2) most = max(most, __shfl_xor_sync(~0u, most, step));
  if ((threadIdx.x & 31) == 0) atomicMax(largest, most);
}
LG_KERNEL(surface_largest)
#endif
