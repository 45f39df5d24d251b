// Small matrix products on the CPU for blocks of rows that stay in cache. Everything is row-major
// fp32; the columns of a result are a multiple of 16 (one vector); pad with zeros.
//
//   gemm_nn:  C[rows][columns]  = A[rows][inner] B[inner][columns], optionally through ReLU
//   gemm_tn:  G[outer][columns] += A[rows][outer]^T D[rows][columns]
//
// The template forms take the number of columns at compile time and dense B, C, D, G; the plain
// forms take any number of columns and leading dimensions. A tile of TILE_ROWS rows by up to
// PANEL vectors lives in registers, so rows (gemm_nn) and outer (gemm_tn) are rounded up to a
// multiple of 8: the caller pads A and C (gemm_nn), A's columns and G (gemm_tn).
//
// What limits it: fused multiply-adds; B's panel is read from the L1 cache.
#pragma once
#include <cstdint>
#include <type_traits>

namespace lg {

typedef float Vector16 __attribute__((vector_size(64), aligned(4), may_alias));

constexpr int VECTOR = 16;
#ifdef __AVX512F__
constexpr int PANEL = 4;  // vectors side by side in a tile: 4 x 4 accumulators of 32 registers
#else
constexpr int PANEL = 2;  // a vector is two or four registers here
#endif

// Rows of a tile. Enough independent sums to hide the latency, few enough to stay in registers.
template <int VECTORS>
constexpr int tile_rows() {
#ifdef __AVX512F__
  return VECTORS == 4 ? 4 : 8;
#else
  return VECTORS == 2 ? 2 : 4;
#endif
}

// Without full unrolling the accumulators live in memory.
#define LG_UNROLL _Pragma("GCC unroll 8")

template <int VECTORS>
static inline void gemm_nn_panel(const float* a, int64_t stride_a, int rows, int inner,
                                 const float* b, int64_t stride_b, float* c, int64_t stride_c,
                                 bool relu) {
  constexpr int ROWS = tile_rows<VECTORS>();
  for (int row = 0; row < rows; row += ROWS) {
    Vector16 sum[ROWS][VECTORS] = {};
    const float* left = a + row * stride_a;
    for (int k = 0; k < inner; ++k) {
      Vector16 right[VECTORS];
      LG_UNROLL for (int v = 0; v < VECTORS; ++v)
          right[v] = *(const Vector16*)(b + k * stride_b + VECTOR * v);
      LG_UNROLL for (int m = 0; m < ROWS; ++m) {
        const float value = left[m * stride_a + k];
        LG_UNROLL for (int v = 0; v < VECTORS; ++v) sum[m][v] += value * right[v];
      }
    }
    LG_UNROLL for (int m = 0; m < ROWS; ++m) {
      LG_UNROLL for (int v = 0; v < VECTORS; ++v) {
        Vector16 result = sum[m][v];
        if (relu) result = result < 0 ? Vector16{} : result;  // NaN stays NaN
        *(Vector16*)(c + (row + m) * stride_c + VECTOR * v) = result;
      }
    }
  }
}

template <int VECTORS>
static inline void gemm_tn_panel(const float* a, int64_t stride_a, int rows, int outer,
                                 const float* d, int64_t stride_d, float* g, int64_t stride_g) {
  constexpr int ROWS = tile_rows<VECTORS>();
  for (int k = 0; k < outer; k += ROWS) {
    Vector16 sum[ROWS][VECTORS];
    LG_UNROLL for (int m = 0; m < ROWS; ++m) {
      LG_UNROLL for (int v = 0; v < VECTORS; ++v)
          sum[m][v] = *(const Vector16*)(g + (k + m) * stride_g + VECTOR * v);
    }
    for (int row = 0; row < rows; ++row) {
      Vector16 right[VECTORS];
      LG_UNROLL for (int v = 0; v < VECTORS; ++v)
          right[v] = *(const Vector16*)(d + row * stride_d + VECTOR * v);
      LG_UNROLL for (int m = 0; m < ROWS; ++m) {
        const float value = a[row * stride_a + k + m];
        LG_UNROLL for (int v = 0; v < VECTORS; ++v) sum[m][v] += value * right[v];
      }
    }
    LG_UNROLL for (int m = 0; m < ROWS; ++m) {
      LG_UNROLL for (int v = 0; v < VECTORS; ++v)
          *(Vector16*)(g + (k + m) * stride_g + VECTOR * v) = sum[m][v];
    }
  }
}

#undef LG_UNROLL

// Calls `panel(width tag, first column)` for panels that cover `columns`.
template <class Panel>
static inline void for_each_panel(int columns, Panel panel) {
  int column = 0;
  for (; column + PANEL * VECTOR <= columns; column += PANEL * VECTOR)
    panel(std::integral_constant<int, PANEL>(), column);
  const int rest = (columns - column) / VECTOR;
  if (PANEL > 3 && rest == 3) panel(std::integral_constant<int, 3>(), column);
  if (PANEL > 2 && rest == 2) panel(std::integral_constant<int, 2>(), column);
  if (rest == 1) panel(std::integral_constant<int, 1>(), column);
}

static inline void gemm_nn(const float* a, int64_t stride_a, int rows, int inner, const float* b,
                           int64_t stride_b, float* c, int64_t stride_c, int columns, bool relu) {
  for_each_panel(columns, [&](auto vectors, int column) {
    gemm_nn_panel<decltype(vectors)::value>(a, stride_a, rows, inner, b + column, stride_b,
                                            c + column, stride_c, relu);
  });
}

static inline void gemm_tn(const float* a, int64_t stride_a, int rows, int outer, const float* d,
                           int64_t stride_d, float* g, int64_t stride_g, int columns) {
  for_each_panel(columns, [&](auto vectors, int column) {
    gemm_tn_panel<decltype(vectors)::value>(a, stride_a, rows, outer, d + column, stride_d,
                                            g + column, stride_g);
  });
}

template <int COLUMNS>
static inline void gemm_nn(const float* a, int64_t stride_a, int rows, int inner, const float* b,
                           float* c, bool relu) {
  static_assert(COLUMNS % VECTOR == 0, "pad the columns to a multiple of 16");
  gemm_nn(a, stride_a, rows, inner, b, COLUMNS, c, COLUMNS, COLUMNS, relu);
}

template <int COLUMNS>
static inline void gemm_tn(const float* a, int64_t stride_a, int rows, int outer, const float* d,
                           float* g) {
  static_assert(COLUMNS % VECTOR == 0, "pad the columns to a multiple of 16");
  gemm_tn(a, stride_a, rows, outer, d, COLUMNS, g, COLUMNS, COLUMNS);
}

// gradient *= (activation > 0), the backward of ReLU; count is a multiple of 16.
static inline void relu_mask(float* gradient, const float* activation, int64_t count) {
  for (int64_t i = 0; i < count; i += VECTOR) {
    const Vector16 active = *(const Vector16*)(activation + i);
    Vector16& value = *(Vector16*)(gradient + i);
    value = active > 0 ? value : Vector16{};
  }
}

}  // namespace lg
