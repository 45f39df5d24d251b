// Grid encoding on the CPU: values, gradients to the table and to the positions, and the
// derivatives of the position gradient. C ABI for ctypes; all arrays contiguous.
//
//   x, direction (points, D); table (entries, F); features and their gradient (points, L * F)
//
// Groups of levels form the outer loop, so that their tables stay in the cache and within reach of
// the address translation; points go in blocks. Limit: cache misses, of the tables and of the rows
// of features, which every group passes over. The gradient to the table is summed by one thread for
// each level, in the order of the points: no atomics, and the same bits for any thread count.
#include <algorithm>
#include <cstring>

#include "grid_block.h"
#include "large_pages.h"

namespace {

using lg::GRID_BLOCK;
using lg::GridBlock;
using lg::GridLevel;

struct Shape {
  int64_t points;
  int levels, dimensions, features;
  bool smooth;
};

// The part of the points that a block covers
struct Span {
  int64_t first;
  int count;
};

inline int64_t block_count(int64_t points) { return (points + GRID_BLOCK - 1) / GRID_BLOCK; }

inline Span block_span(int64_t points, int64_t block) {
  const int64_t first = block * GRID_BLOCK;
  return {first, (int)std::min<int64_t>(GRID_BLOCK, points - first)};
}

// Positions outside the unit cube are clamped to it: no derivative reaches them.
inline bool is_inside(float x) { return x >= 0.0f && x <= 1.0f; }

template <int D>
void mask_direction(const float* x, const float* direction, int n, float* masked) {
  for (int k = 0; k < n * D; ++k) masked[k] = is_inside(x[k]) ? direction[k] : 0.0f;
}

// What depends on D alone is kept out of line, so that it is compiled once for all features.
#define LG_OUT_OF_LINE __attribute__((noinline))

// `direction` null: weights; else their rates along it
template <int D>
LG_OUT_OF_LINE void prepare(const float* x, const float* direction, const GridLevel& level,
                            const Shape& shape, Span span, GridBlock<D>& block) {
  const float* points = x + D * span.first;
  lg::locate_block<D>(points, level, shape.smooth, span.count, block);
  if (!direction) {
    lg::weigh_block<D>(span.count, block);
    return;
  }
  float masked[D * GRID_BLOCK];
  mask_direction<D>(points, direction + D * span.first, span.count, masked);
  lg::tangent_block<D>(masked, level, shape.smooth, span.count, block);
}

// Levels [first, end)
struct Group {
  int first, end;
};

// The levels from `first` on whose tables together are no larger than TABLE_BYTES; at least one.
constexpr size_t TABLE_BYTES = 8 << 20;

inline Group level_group(const GridLevel* levels, const Shape& shape, int first) {
  const size_t entry_bytes = sizeof(float) * shape.features;
  size_t bytes = levels[first].size * entry_bytes;
  int end = first + 1;
  while (end < shape.levels && bytes + levels[end].size * entry_bytes <= TABLE_BYTES)
    bytes += levels[end++].size * entry_bytes;
  return {first, end};
}

template <int D, int F>
struct Forward {
  static void run(const float* x, const float* direction, const float* table,
                  const GridLevel* levels, float* features, const Shape& shape) {
    const int64_t stride = (int64_t)shape.levels * F;
    lg::ask_for_large_pages(features, sizeof(float) * stride * shape.points);
#pragma omp parallel
    for (Group group{0, 0}; group.end < shape.levels;) {
      group = level_group(levels, shape, group.end);
#pragma omp for schedule(static) nowait
      for (int64_t b = 0; b < block_count(shape.points); ++b) {
        GridBlock<D> block;
        const Span span = block_span(shape.points, b);
        for (int l = group.first; l < group.end; ++l) {
          prepare<D>(x, direction, levels[l], shape, span, block);
          lg::gather_block<D, F>(table + F * (size_t)levels[l].offset, span.count, block,
                                 features + span.first * stride + F * l, stride);
        }
      }
    }
  }
};

template <int D, int F>
struct BackwardTable {
  static void run(const float* x, const float* direction, const float* gradient,
                  const GridLevel* levels, float* table_gradient, const Shape& shape) {
    const int64_t stride = (int64_t)shape.levels * F;
    const GridLevel& last = levels[shape.levels - 1];
    const size_t entries_total = (size_t)last.offset + last.size;
    lg::ask_for_large_pages(table_gradient, sizeof(float) * F * entries_total);
#pragma omp parallel for schedule(dynamic, 1)
    for (int l = shape.levels - 1; l >= 0; --l) {  // large levels first
      const GridLevel level = levels[l];
      float* entries = table_gradient + F * (size_t)level.offset;
      std::memset(entries, 0, sizeof(float) * F * level.size);
      for (int64_t b = 0; b < block_count(shape.points); ++b) {
        GridBlock<D> block;
        const Span span = block_span(shape.points, b);
        prepare<D>(x, direction, level, shape, span, block);
        const float* rows = gradient + span.first * stride + F * l;
        lg::scatter_block<D, F>(rows, stride, span.count, block, entries);
      }
    }
  }
};

// Adds the gradient of every point of a block, or with `direction` its Hessian times that
template <int D, bool SMOOTH>
LG_OUT_OF_LINE void derive_block(const GridBlock<D>& block,
                                 const float (&product)[1 << D][GRID_BLOCK],
                                 const GridLevel& level, const float* direction, int n,
                                 float (&totals)[GRID_BLOCK][D]) {
  for (int j = 0; j < n; ++j) {
    float corner[1 << D], value[D], slope[D], curvature[D], along[D];
    for (int c = 0; c < 1 << D; ++c) corner[c] = product[c][j];
    for (int d = 0; d < D; ++d) {
      value[d] = block.value[d][j];
      slope[d] = SMOOTH ? block.slope[d][j] : 1.0f;
      curvature[d] = SMOOTH ? block.curvature[d][j] : 0.0f;
      along[d] = direction ? direction[D * j + d] : 0.0f;
    }
    if (direction)
      lg::add_curvature<D, SMOOTH>(corner, value, slope, curvature, along, level.scale, totals[j]);
    else
      lg::add_gradient<D>(corner, value, slope, level.scale, totals[j]);
  }
}

template <int D>
void derive(const GridBlock<D>& block, const float (&product)[1 << D][GRID_BLOCK],
            const GridLevel& level, const float* x, const float* direction, const Shape& shape,
            Span span, float (&totals)[GRID_BLOCK][D]) {
  const int64_t first = D * span.first;
  float masked[D * GRID_BLOCK];
  if (direction) mask_direction<D>(x + first, direction + first, span.count, masked);
  const float* along = direction ? masked : nullptr;
  if (shape.smooth)
    derive_block<D, true>(block, product, level, along, span.count, totals);
  else
    derive_block<D, false>(block, product, level, along, span.count, totals);
}

// Adds the totals of a block to its rows (or sets them), nothing where the position was clamped
template <int D>
void add_rows(const float* x, const float (&totals)[GRID_BLOCK][D], Span span, bool set,
              float* rows) {
  for (int j = 0; j < span.count; ++j)
    for (int d = 0; d < D; ++d) {
      const int64_t k = D * (span.first + j) + d;
      const float total = is_inside(x[k]) ? totals[j][d] : 0.0f;
      rows[k] = set ? total : rows[k] + total;
    }
}

template <int D, int F>
struct BackwardX {
  static void run(const float* x, const float* direction, const float* table,
                  const float* gradient, const GridLevel* levels, float* x_gradient,
                  const Shape& shape) {
    const int64_t stride = (int64_t)shape.levels * F;
#pragma omp parallel
    for (Group group{0, 0}; group.end < shape.levels;) {
      group = level_group(levels, shape, group.end);
#pragma omp for schedule(static) nowait
      for (int64_t b = 0; b < block_count(shape.points); ++b) {
        const Span span = block_span(shape.points, b);
        float totals[GRID_BLOCK][D] = {};
        for (int l = group.first; l < group.end; ++l) {
          GridBlock<D> block;
          float product[1 << D][GRID_BLOCK];
          prepare<D>(x, nullptr, levels[l], shape, span, block);
          lg::product_block<D, F>(table + F * (size_t)levels[l].offset,
                                  gradient + span.first * stride + F * l, stride, span.count,
                                  block, product);
          derive(block, product, levels[l], x, direction, shape, span, totals);
        }
        add_rows<D>(x, totals, span, group.first == 0, x_gradient);
      }
    }
  }
};

template <template <int, int> class Operation, int D, class... Arguments>
bool run_features(const Shape& shape, Arguments... arguments) {
  switch (shape.features) {
    case 1: Operation<D, 1>::run(arguments..., shape); return true;
    case 2: Operation<D, 2>::run(arguments..., shape); return true;
    case 4: Operation<D, 4>::run(arguments..., shape); return true;
    case 8: Operation<D, 8>::run(arguments..., shape); return true;
    default: return false;
  }
}

template <template <int, int> class Operation, class... Arguments>
int run(const Shape& shape, Arguments... arguments) {
  switch (shape.dimensions) {
    case 2: return !run_features<Operation, 2>(shape, arguments...);
    case 3: return !run_features<Operation, 3>(shape, arguments...);
    case 4: return !run_features<Operation, 4>(shape, arguments...);
    default: return 1;
  }
}

inline Shape shape_of(int64_t points, int levels, int dimensions, int features, int smooth) {
  return {points, levels, dimensions, features, smooth != 0};
}

}  // namespace

// All return 0, or 1 when the dimensions or features are not compiled in. `direction` may be null:
// then the plain weights are meant, else their rates along it.

LG_EXPORT int lg_grid_forward(const float* x, const float* direction, const float* table,
                              const GridLevel* levels, float* features, int64_t points,
                              int level_count, int dimensions, int feature_count, int smooth) {
  const Shape shape = shape_of(points, level_count, dimensions, feature_count, smooth);
  return run<Forward>(shape, x, direction, table, levels, features);
}

// Sets all of table_gradient.
LG_EXPORT int lg_grid_backward_table(const float* x, const float* direction, const float* gradient,
                                     const GridLevel* levels, float* table_gradient,
                                     int64_t points, int level_count, int dimensions,
                                     int feature_count, int smooth) {
  const Shape shape = shape_of(points, level_count, dimensions, feature_count, smooth);
  return run<BackwardTable>(shape, x, direction, gradient, levels, table_gradient);
}

// Gradient to the positions; with `direction` the Hessian of (features . gradient) times it.
LG_EXPORT int lg_grid_backward_x(const float* x, const float* direction, const float* table,
                                 const float* gradient, const GridLevel* levels,
                                 float* x_gradient, int64_t points, int level_count,
                                 int dimensions, int feature_count, int smooth) {
  const Shape shape = shape_of(points, level_count, dimensions, feature_count, smooth);
  return run<BackwardX>(shape, x, direction, table, gradient, levels, x_gradient);
}
