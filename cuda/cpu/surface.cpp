// Signed distances of a grid with a small network on the CPU: value, feature and gradient in one
// pass, and the gradients of a loss on all three in another.
//
// Points go in blocks of 64. Every matrix of a block has a row for each feature and a column for
// each point, so that sums and products run over neighbouring points, and a layer is its weights,
// as they are stored, times such a matrix. The gradients of the weights are sums over points: for
// those the lower operand is turned around. Letters are those of cuda/reference/surface.py.
//
// The backward pass takes BATCH points at a time: networks first, in chunks whose gradients of the
// weights are summed in order; then the table, one level a thread, in the order of the points. No
// atomics, and the same bits for any thread count. Limits: multiply-adds of the network, then
// cache misses of the table.
#include <algorithm>
#include <cstring>
#include <vector>

#include "exponential.h"
#include "gemm.h"
#include "large_pages.h"
#include "surface_block.h"  // after gemm.h, which undefines its own LG_UNROLL

using namespace lg;

namespace {

constexpr int OUTPUTS = 16;
constexpr int BATCH = 1 << 14;  // points whose rows for the table fit the second cache
constexpr int CHUNK = 512;      // points of one task
constexpr float SHARPNESS = 100.0f;
constexpr int BOTH = 2 * POINTS;  // columns of first- and second-order operands side by side

// Mirrors _Model in cuda/surface.py.
struct Model {
  const float *table, *weights;
  const GridLevel* levels;
  int32_t level_count, features, width, hidden;
  int32_t softplus, smooth;
  float active;  // levels that are on
  float bias;

  float share(int level) const { return std::min(std::max(active - (float)level, 0.0f), 1.0f); }
  int levels_on() const {
    int on = 0;
    while (on < level_count && share(on) > 0.0f) ++on;
    return on;
  }
};

struct Gradients {
  const float* distance;  // by each result of the forward pass; null: none
  const float* feature;
  const float* gradient;
};

constexpr int rounded(int n, int to) { return (n + to - 1) / to * to; }

// One layer: `forward` (out, stride) as the caller has it, of which `in` columns are in use, and
// `backward` (in, out) with rows of zeros up to a multiple of eight.
struct Layer {
  int in, out, stride, padded;  // padded: `in` up to a whole vector
  const float* forward;
  std::vector<float> backward;
  Layer(const float* w, int inputs, int outputs, int used)
      : in(used), out(outputs), stride(inputs), padded(rounded(used, VECTOR)), forward(w),
        backward((size_t)rounded(used, 8) * outputs) {
    for (int j = 0; j < out; ++j)
      for (int k = 0; k < in; ++k) backward[(size_t)k * out + j] = w[(size_t)j * stride + k];
  }
  int gradient_size() const { return out * padded; }
};

struct Network {
  std::vector<Layer> layers;
  size_t gradient_size = 0;
  Network(const Model& model, int used) {
    const float* weights = model.weights;
    int in = 3 + model.level_count * model.features;
    for (int k = 0; k <= model.hidden; ++k) {
      const int out = k < model.hidden ? model.width : OUTPUTS;
      layers.emplace_back(weights, in, out, k ? in : used);
      gradient_size += layers.back().gradient_size();
      weights += (size_t)in * out;
      in = out;
    }
  }
  // Adds padded gradients to those in the caller's layout.
  void add_gradient(const float* from, float* target) const {
    for (const Layer& layer : layers) {
      for (int j = 0; j < layer.out; ++j)
        for (int k = 0; k < layer.in; ++k)
          target[(size_t)j * layer.stride + k] += from[(size_t)j * layer.padded + k];
      from += layer.gradient_size();
      target += (size_t)layer.out * layer.stride;
    }
  }
};

// log(1 + x) for x in [0, 1], from the series of the inverse hyperbolic tangent
inline float log_one_plus(float x) {
  const float t = x / (2.0f + x), square = t * t;
  float p = 1.0f / 15.0f;
  p = p * square + 1.0f / 13.0f;
  p = p * square + 1.0f / 11.0f;
  p = p * square + 1.0f / 9.0f;
  p = p * square + 1.0f / 7.0f;
  p = p * square + 1.0f / 5.0f;
  p = p * square + 1.0f / 3.0f;
  return 2.0f * t * (1.0f + square * p);
}

// value = s(value), slope = s'(value)
void activate(const Model& model, int count, float* value, float* slope) {
  if (model.softplus) {
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const float z = SHARPNESS * value[i], size = z < 0.0f ? -z : z;
      const float small = exponential(-size), whole = 1.0f / (1.0f + small);
      const float ramp = z < 0.0f ? 0.0f : z;  // NaN stays NaN
      value[i] = (ramp + log_one_plus(small)) * (1.0f / SHARPNESS);
      slope[i] = z > 0.0f ? whole : small * whole;
    }
    return;
  }
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    slope[i] = value[i] > 0.0f ? 1.0f : 0.0f;
    value[i] = value[i] < 0.0f ? 0.0f : value[i];  // NaN stays NaN
  }
}

// What a thread needs for one block; sizes are fixed by the model.
struct Work {
  std::vector<float> memory;
  float x[3 * POINTS];                  // positions, those that fill the block up at 0
  Row inside[3], direction[3], by_x[3];
  std::vector<SurfaceCell> cells;       // of every level, or of the one at hand
  Row (*corners)[8];                    // (cells, F) of these
  Row* input;                           // x
  Row* rate[3];                         // of x by the position
  Row *by_input, *tilt;                 // e_0 and u_0
  Row* value[4];                        // h_k, value[0] = input
  Row* slope[4];                        // s'(z_(k-1)) at place k
  Row* ahead[4];                        // u_k
  Row* along[4];                        // r_k
  float* both[4];                       // c_k and d_k side by side, rows of BOTH
  Row* spare;
  float *turned, *product;              // points along rows; a layer's gradient
};

struct Arena {  // hands out pieces of one array
  std::vector<float>& memory;
  size_t used = 0;
  bool counting = true;
  float* take(size_t floats) {
    float* piece = counting ? nullptr : memory.data() + used;
    used += rounded((int)floats, VECTOR);
    return piece;
  }
  Row* rows(int count) { return (Row*)take((size_t)count * POINTS); }
};

template <int F>
struct Surface {
  const Model& model;
  const int on, used, hidden;  // levels that are on, their inputs, hidden layers
  const Network network;

  explicit Surface(const Model& m)
      : model(m), on(m.levels_on()), used(3 + on * F), hidden(m.hidden), network(m, used) {}

  void lay_out(Work& work, Arena& arena, bool backward) const {
    const int inputs = rounded(used, 8), widest = std::max(inputs, model.width);
    work.corners = (Row(*)[8])arena.rows((backward ? std::max(on, 1) : 1) * F * 8);
    work.value[0] = work.input = arena.rows(inputs);
    for (int d = 0; d < 3; ++d) work.rate[d] = arena.rows(inputs);
    work.tilt = arena.rows(inputs);
    work.by_input = arena.rows(inputs);
    for (int k = 1; k <= hidden; ++k) {
      work.value[k] = arena.rows(model.width);
      work.slope[k] = arena.rows(model.width);
      work.ahead[k] = arena.rows(model.width);
      work.along[k] = arena.rows(model.width);
    }
    work.along[0] = arena.rows(inputs);
    for (int k = 0; k <= hidden; ++k) work.both[k] = arena.take((size_t)model.width * BOTH);
    work.spare = arena.rows(widest);
    work.turned = arena.take((size_t)BOTH * rounded(widest, VECTOR));
    work.product = arena.take((size_t)model.width * rounded(widest, VECTOR));
  }

  void prepare(Work& work, bool backward) const {
    Arena arena{work.memory};
    lay_out(work, arena, backward);
    work.memory.assign(arena.used + VECTOR, 0.0f);
    arena.used = 0;
    arena.counting = false;
    lay_out(work, arena, backward);
    work.cells.resize(backward ? std::max(on, 1) : 1);
  }

  void read_positions(Work& work, const float* positions, int count) const {
    std::fill(work.x, work.x + 3 * POINTS, 0.0f);
    std::memcpy(work.x, positions, sizeof(float) * 3 * count);
    for (int d = 0; d < 3; ++d)
      for (int j = 0; j < POINTS; ++j) {
        const float x = work.x[3 * j + d];
        work.inside[d][j] = x >= 0.0f && x <= 1.0f ? 1.0f : 0.0f;
        work.input[d][j] = clamp_unit(x) - 0.5f;
      }
  }

  // x and, for the gradient, its rates. `keep`: cells and corners of every level stay.
  void encode(Work& work, bool rates, bool keep) const {
    for (int d = 0; rates && d < 3; ++d)
      for (int e = 0; e < 3; ++e)
        for (int j = 0; j < POINTS; ++j)
          work.rate[d][e][j] = d == e ? work.inside[d][j] : 0.0f;
    for (int l = 0; l < on; ++l) {
      const GridLevel& level = model.levels[l];
      SurfaceCell& cell = work.cells[keep ? l : 0];
      Row(*corner)[8] = work.corners + (keep ? l : 0) * F;
      find_cells(work.x, work.inside, level, model.smooth, cell);
      copy_corners<F>(model.table + F * (size_t)level.offset, cell, corner);
      for (int f = 0; f < F; ++f) {
        const int row = 3 + F * l + f;
        if (rates)
          interpolate(corner[f], cell, model.share(l), work.input[row], work.rate[0][row],
                      work.rate[1][row], work.rate[2][row]);
        else
          interpolate(corner[f], cell, model.share(l), work.input[row]);
      }
    }
  }

  void layer_forward(int k, const Row* from, Row* to) const {
    const Layer& layer = network.layers[k];
    gemm_nn(layer.forward, layer.stride, layer.out, layer.in, (const float*)from, POINTS,
            (float*)to, POINTS, POINTS, false);
  }

  void layer_backward(int k, const float* from, int stride, Row* to) const {
    const Layer& layer = network.layers[k];
    gemm_nn(layer.backward.data(), layer.out, rounded(layer.in, 8), layer.out, from, stride,
            (float*)to, POINTS, POINTS, false);
  }

  void run_hidden(Work& work) const {
    for (int k = 0; k < hidden; ++k) {
      layer_forward(k, work.value[k], work.value[k + 1]);
      activate(model, model.width * POINTS, (float*)work.value[k + 1],
               (float*)work.slope[k + 1]);
    }
  }

  // u_H .. u_1, d_k and u_0
  void run_sensitivities(Work& work) const {
    const float* top = network.layers[hidden].forward;
    for (int i = 0; i < model.width; ++i) std::fill_n(work.ahead[hidden][i], POINTS, top[i]);
    for (int k = hidden - 1; k >= 0; --k) {
      float* target = work.both[k] + POINTS;
      for (int i = 0; i < model.width; ++i) {
        const float *ahead = work.ahead[k + 1][i], *slope = work.slope[k + 1][i];
#pragma omp simd
        for (int j = 0; j < POINTS; ++j) target[i * BOTH + j] = ahead[j] * slope[j];
      }
      layer_backward(k, target, BOTH, k ? work.ahead[k] : work.tilt);
    }
  }

  // total[d] += sum over the rows of x of (rate by axis d) * gradient
  void add_chain(const Work& work, const Row* gradient, Row* total) const {
    for (int d = 0; d < 3; ++d)
      for (int i = 0; i < used; ++i) {
        const float *rate = work.rate[d][i], *row = gradient[i];
        if (i < 3 && i != d) continue;
#pragma omp simd
        for (int j = 0; j < POINTS; ++j) total[d][j] += rate[j] * row[j];
      }
  }

  void forward_block(Work& work, const float* positions, int count, float* distance,
                     float* feature, float* gradient) const {
    read_positions(work, positions, count);
    encode(work, gradient != nullptr, false);
    run_hidden(work);
    Row* out = work.spare;
    if (feature) {
      layer_forward(hidden, work.value[hidden], out);
      for (int j = 0; j < count; ++j)
        for (int i = 0; i < OUTPUTS; ++i) feature[OUTPUTS * j + i] = out[i][j];
    } else {
      const float* top = network.layers[hidden].forward;
      std::fill_n(out[0], POINTS, 0.0f);
      for (int i = 0; i < model.width; ++i) {
        const float* value = work.value[hidden][i];
#pragma omp simd
        for (int j = 0; j < POINTS; ++j) out[0][j] += top[i] * value[j];
      }
    }
    for (int j = 0; j < count; ++j) distance[j] = out[0][j] + model.bias;
    if (!gradient) return;
    run_sensitivities(work);
    std::memset(work.by_x, 0, sizeof work.by_x);
    add_chain(work, work.tilt, work.by_x);
    write_rows(work.by_x, count, gradient);
  }

  static void write_rows(const Row (&from)[3], int count, float* to) {
    for (int j = 0; j < count; ++j)
      for (int d = 0; d < 3; ++d) to[3 * j + d] = from[d][j];
  }

  void forward(const float* positions, int64_t points, float* distance, float* feature,
               float* gradient) const {
#pragma omp parallel
    {
      Work& work = thread_work();
      prepare(work, false);
#pragma omp for schedule(dynamic, CHUNK / POINTS)
      for (int64_t block = 0; block < (points + POINTS - 1) / POINTS; ++block) {
        const int64_t first = block * POINTS;
        const int count = (int)std::min<int64_t>(POINTS, points - first);
        forward_block(work, positions + 3 * first, count, distance + first,
                      feature ? feature + OUTPUTS * first : nullptr,
                      gradient ? gradient + 3 * first : nullptr);
      }
    }
  }

  // r_0 .. r_H for the direction in `work`
  void run_along(Work& work) const {
    for (int i = 0; i < used; ++i) {
      float* target = work.along[0][i];
#pragma omp simd
      for (int j = 0; j < POINTS; ++j)
        target[j] = work.rate[0][i][j] * work.direction[0][j] +
                    work.rate[1][i][j] * work.direction[1][j] +
                    work.rate[2][i][j] * work.direction[2][j];
    }
    for (int k = 0; k < hidden; ++k) {
      layer_forward(k, work.along[k], work.along[k + 1]);
      float *target = (float*)work.along[k + 1], *slope = (float*)work.slope[k + 1];
#pragma omp simd
      for (int i = 0; i < model.width * POINTS; ++i) target[i] *= slope[i];
    }
  }

  // The gradient by the outputs, beside the top row's unit vector
  void read_output_gradient(Work& work, const Gradients& given, int64_t first, int count) const {
    float* target = work.both[hidden];
    std::fill_n(target, OUTPUTS * BOTH, 0.0f);
    std::fill_n(target + POINTS, POINTS, 1.0f);
    for (int j = 0; given.feature && j < count; ++j)
      for (int i = 0; i < OUTPUTS; ++i)
        target[i * BOTH + j] = given.feature[OUTPUTS * (first + j) + i];
    for (int j = 0; given.distance && j < count; ++j) target[j] += given.distance[first + j];
  }

  void turn(const Row* from, int rows, int stride, float* to) const {
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < POINTS; ++j) to[j * stride + i] = from[i][j];
    for (int i = rows; i < stride; ++i)
      for (int j = 0; j < POINTS; ++j) to[j * stride + i] = 0.0f;
  }

  // target += c_k h_k^T + d_k r_k^T
  void add_weight_gradient(Work& work, int k, bool second, float* target) const {
    const Layer& layer = network.layers[k];
    turn(work.value[k], layer.in, layer.padded, work.turned);
    if (second) turn(work.along[k], layer.in, layer.padded, work.turned + POINTS * layer.padded);
    gemm_nn(work.both[k], BOTH, layer.out, second ? BOTH : POINTS, work.turned, layer.padded,
            work.product, layer.padded, layer.padded, false);
    for (int i = 0; i < layer.gradient_size(); ++i) target[i] += work.product[i];
  }

  // c_(k-1) from e_k in `spare`
  void descend(Work& work, int k, bool second) const {
    float* target = work.both[k - 1];
    for (int i = 0; i < model.width; ++i) {
      const float *by_value = work.spare[i], *slope = work.slope[k][i];
      const float *ahead = work.ahead[k][i], *along = work.along[k][i];
      const bool bent = second && model.softplus;
#pragma omp simd
      for (int j = 0; j < POINTS; ++j) {
        const float bend = bent ? SHARPNESS * (1.0f - slope[j]) * ahead[j] * along[j] : 0.0f;
        target[i * BOTH + j] = by_value[j] * slope[j] + bend;
      }
    }
  }

  // Adds to the padded gradients of the weights (null: not wanted); e_0 and u_0 stay in `work`.
  void network_backward(Work& work, bool second, float* weights_gradient) const {
    size_t offset = network.gradient_size;
    for (int k = hidden; k >= 0; --k) {
      offset -= network.layers[k].gradient_size();
      if (weights_gradient) add_weight_gradient(work, k, second, weights_gradient + offset);
      layer_backward(k, work.both[k], BOTH, k ? work.spare : work.by_input);
      if (k) descend(work, k, second);
    }
  }

  void position_gradient(Work& work, bool second, int count, float* target) const {
    std::memset(work.by_x, 0, sizeof work.by_x);
    if (second) {
      for (int l = 0; l < on; ++l)
        add_hessian<F>(work.corners + l * F, work.cells[l], work.tilt + 3 + F * l, work.direction,
                       model.share(l), work.by_x);
    }
    add_chain(work, work.by_input, work.by_x);
    write_rows(work.by_x, count, target);
  }

  // rows: (levels on, BATCH, 2 F) of e_0 and u_0, times the share of the level
  void keep_rows(const Work& work, int first, int count, float* rows) const {
    for (int l = 0; l < on; ++l)
      for (int j = 0; j < count; ++j) {
        float* row = rows + ((size_t)l * BATCH + first + j) * 2 * F;
        for (int f = 0; f < F; ++f) {
          row[f] = model.share(l) * work.by_input[3 + F * l + f][j];
          row[F + f] = model.share(l) * work.tilt[3 + F * l + f][j];
        }
      }
  }

  void read_direction(Work& work, const float* gradient, int64_t first, int count) const {
    std::memset(work.direction, 0, sizeof work.direction);
    for (int j = 0; gradient && j < count; ++j)
      for (int d = 0; d < 3; ++d)
        work.direction[d][j] = gradient[3 * (first + j) + d] * work.inside[d][j];
  }

  // Points [first, first + count) of a batch that begins at `batch`
  void backward_block(Work& work, const float* positions, const Gradients& given, int64_t batch,
                      int first, int count, float* weights_gradient, float* positions_gradient,
                      float* rows) const {
    const bool second = given.gradient != nullptr;
    const int64_t place = batch + first;
    read_positions(work, positions + 3 * place, count);
    read_direction(work, given.gradient, place, count);
    encode(work, second || positions_gradient, positions_gradient != nullptr);
    run_hidden(work);
    read_output_gradient(work, given, place, count);
    if (second) {
      run_sensitivities(work);
      run_along(work);
    } else {
      std::fill_n((float*)work.tilt, used * POINTS, 0.0f);
    }
    network_backward(work, second, weights_gradient);
    if (positions_gradient)
      position_gradient(work, second, count, positions_gradient + 3 * place);
    if (rows) keep_rows(work, first, count, rows);
  }

  void scatter_level(Work& work, int l, const float* positions, const Gradients& given,
                     int64_t batch, int count, const float* rows, float* table_gradient) const {
    const GridLevel& level = model.levels[l];
    float* entries = table_gradient + F * (size_t)level.offset;
    if (!batch) std::memset(entries, 0, sizeof(float) * F * level.size);
    if (l >= on) return;
    for (int first = 0; first < count; first += POINTS) {
      const int n = std::min(POINTS, count - first);
      read_positions(work, positions + 3 * (batch + first), n);
      read_direction(work, given.gradient, batch + first, n);
      find_cells(work.x, work.inside, level, model.smooth, work.cells[0]);
      scatter_both<F>(rows + ((size_t)l * BATCH + first) * 2 * F, n, work.cells[0],
                      work.direction, entries);
    }
  }

  // The three gradients are set; null: not wanted.
  void backward(const float* positions, int64_t points, const Gradients& given,
                float* table_gradient, float* weights_gradient, float* positions_gradient) const {
    const size_t size = network.gradient_size;
    static thread_local std::vector<float> rows, partial;  // kept between calls
    if (table_gradient) {
      const GridLevel& last = model.levels[model.level_count - 1];
      ask_for_large_pages(table_gradient, sizeof(float) * F * ((size_t)last.offset + last.size));
      rows.resize(std::max(rows.size(), (size_t)on * BATCH * 2 * F + VECTOR));
    }
    if (weights_gradient) {
      const Layer &first = network.layers[0], &last = network.layers[hidden];
      const size_t all = (size_t)first.stride * first.out + (size_t)last.stride * last.out +
                         (size_t)(hidden - 1) * model.width * model.width;
      std::fill_n(weights_gradient, all, 0.0f);
    }
    float *row = table_gradient ? rows.data() : nullptr;
    for (int64_t batch = 0; batch < std::max<int64_t>(points, 1); batch += BATCH) {
      const int count = (int)std::min<int64_t>(BATCH, points - batch);
      const int chunks = (count + CHUNK - 1) / CHUNK;
      if (weights_gradient) partial.assign(size * chunks, 0.0f);
      float* parts = weights_gradient ? partial.data() : nullptr;
#pragma omp parallel
      {
        Work& work = thread_work();
        prepare(work, true);
#pragma omp for schedule(dynamic, 1)
        for (int chunk = 0; chunk < chunks; ++chunk)
          for (int first = chunk * CHUNK; first < std::min(count, (chunk + 1) * CHUNK);
               first += POINTS)
            backward_block(work, positions, given, batch, first, std::min(POINTS, count - first),
                           parts ? parts + size * chunk : nullptr, positions_gradient, row);
        // the finest levels miss the cache most and so take longest: they go first
#pragma omp for schedule(dynamic, 1)
        for (int l = model.level_count - 1; l >= 0; --l)
          if (table_gradient)
            scatter_level(work, l, positions, given, batch, count, row, table_gradient);
      }
      for (int chunk = 0; parts && chunk < chunks; ++chunk)
        network.add_gradient(parts + size * chunk, weights_gradient);
    }
  }

  static Work& thread_work() {
    static thread_local Work work;
    return work;
  }
};

template <class Run>
void with_features(const Model& model, Run run) {
  switch (model.features) {
    case 1: return run(Surface<1>(model));
    case 2: return run(Surface<2>(model));
    case 4: return run(Surface<4>(model));
    default: return run(Surface<8>(model));
  }
}

}  // namespace

// distance (points), feature (points, 16) and gradient (points, 3); feature and gradient may be
// null.
LG_EXPORT void lg_surface_forward(const Model* model, const float* positions, int64_t points,
                                  float* distance, float* feature, float* gradient) {
  with_features(*model, [&](const auto& surface) {
    surface.forward(positions, points, distance, feature, gradient);
  });
}

// Sets the gradients by table, weights and positions, from those by the three results; any pointer
// to a gradient may be null.
LG_EXPORT void lg_surface_backward(const Model* model, const float* positions, int64_t points,
                                   const float* by_distance, const float* by_feature,
                                   const float* by_gradient, float* table_gradient,
                                   float* weights_gradient, float* positions_gradient) {
  const Gradients given = {by_distance, by_feature, by_gradient};
  with_features(*model, [&](const auto& surface) {
    surface.backward(positions, points, given, table_gradient, weights_gradient,
                     positions_gradient);
  });
}
