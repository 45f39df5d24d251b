// Fused small network on the CPU, fp32: layers without bias, ReLU between them, one of five
// activations at the end. Layer l is (widths[l + 1], widths[l]) row-major in the flat weights.
//
// A thread takes blocks of 64 rows whose activations stay in cache through all layers. The
// backward computes the hidden activations again: that costs less than writing and reading them.
//
// Weight gradients: rows are cut into chunks by their number alone, every chunk sums into its own
// buffer, the buffers are added in order. The result is the same bit for bit for any number of
// threads. Limited by fused multiply-adds.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "exponential.h"
#include "gemm.h"

#define LG_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr int BLOCK = 64;                // rows
constexpr int64_t CHUNKS = 64;           // buffers of weight gradients, at most
constexpr int64_t LEAST_CHUNK = 1024;    // rows: a smaller chunk costs more to add than to fill
constexpr float LARGEST_EXPONENT = 15;   // of the exp activation

// The numbers are shared with cuda/mlp.py and kernels/mlp.h.
enum Activation : int64_t { NONE = 0, RELU = 1, SIGMOID = 2, EXP = 3, SOFTPLUS = 4 };

struct Free {
  void operator()(float* p) const { std::free(p); }
};
typedef std::unique_ptr<float[], Free> Buffer;

Buffer allocate(int64_t count) {
  const size_t bytes = ((size_t)std::max<int64_t>(count, 1) * sizeof(float) + 63) / 64 * 64;
  return Buffer((float*)std::aligned_alloc(64, bytes));
}

int padded(int64_t width) { return (int)((width + 15) / 16 * 16); }

// Shapes, and the weights padded to vectors: `forward` is [in][out] a layer, `backward` [out][in].
struct Network {
  int layers;
  int64_t activation;
  std::vector<int> width, padded_width;
  std::vector<int64_t> offset;  // of a padded layer
  int64_t size = 0;             // of all padded layers
  Buffer forward, backward;

  Network(const float* weights, const int64_t* widths, int64_t layer_count, int64_t activation_)
      : layers((int)layer_count), activation(activation_) {
    for (int l = 0; l <= layers; ++l) {
      width.push_back((int)widths[l]);
      padded_width.push_back(padded(widths[l]));
    }
    for (int l = 0; l < layers; ++l) {
      offset.push_back(size);
      size += (int64_t)padded_width[l] * padded_width[l + 1];
    }
    forward = allocate(size);
    backward = allocate(size);
    std::fill_n(forward.get(), size, 0.0f);
    std::fill_n(backward.get(), size, 0.0f);
    for (int l = 0; l < layers; ++l) {
      pack(l, weights);
      weights += (int64_t)width[l] * width[l + 1];
    }
  }

  void pack(int l, const float* weights) {
    const int64_t in = padded_width[l], out = padded_width[l + 1];
    for (int64_t j = 0; j < width[l + 1]; ++j) {
      for (int64_t i = 0; i < width[l]; ++i) {
        const float value = weights[j * width[l] + i];
        forward[offset[l] + i * out + j] = value;
        backward[offset[l] + j * in + i] = value;
      }
    }
  }

  int widest() const { return *std::max_element(padded_width.begin(), padded_width.end()); }
};

// One thread's room: the activations of every layer of a block, and two gradients.
struct Workspace {
  std::vector<Buffer> values;
  Buffer gradient, next_gradient;

  explicit Workspace(const Network& net) {
    for (int width : net.padded_width) values.push_back(allocate((int64_t)BLOCK * width));
    gradient = allocate((int64_t)BLOCK * net.widest());
    next_gradient = allocate((int64_t)BLOCK * net.widest());
  }
};

// Rows of `width` floats to rows of `padded` floats; missing rows and columns are zero.
void load_rows(const float* from, int rows, int width, int padded, float* to) {
  if (width < padded || rows < BLOCK) std::fill_n(to, (int64_t)BLOCK * padded, 0.0f);
  for (int r = 0; r < rows; ++r)
    std::memcpy(to + (int64_t)r * padded, from + (int64_t)r * width, sizeof(float) * width);
}

void store_rows(const float* from, int rows, int width, int padded, float* to) {
  for (int r = 0; r < rows; ++r)
    std::memcpy(to + (int64_t)r * width, from + (int64_t)r * padded, sizeof(float) * width);
}

void activate(float* values, int64_t count, int64_t activation) {
  if (activation == RELU) {
    for (int64_t i = 0; i < count; ++i) values[i] = values[i] < 0 ? 0.0f : values[i];
  } else if (activation == SIGMOID) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = 1.0f / (1.0f + lg::exponential(-values[i]));
  } else if (activation == EXP) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const float x = values[i];
      values[i] = lg::exponential(x > LARGEST_EXPONENT ? LARGEST_EXPONENT : x);
    }
  } else if (activation == SOFTPLUS) {
    for (int64_t i = 0; i < count; ++i) {
      const float x = values[i];
      values[i] = (x < 0 ? 0.0f : x) + std::log1p(lg::exponential(-std::fabs(x)));
    }
  }
}

// gradient *= derivative of the activation, as a function of its result y
void activation_backward(float* gradient, const float* y, int64_t count, int64_t activation) {
  if (activation == RELU) {
    for (int64_t i = 0; i < count; ++i) gradient[i] = y[i] > 0 ? gradient[i] : 0.0f;
  } else if (activation == SIGMOID) {
    for (int64_t i = 0; i < count; ++i) gradient[i] *= y[i] * (1.0f - y[i]);
  } else if (activation == EXP) {
    for (int64_t i = 0; i < count; ++i) gradient[i] *= y[i];
  } else if (activation == SOFTPLUS) {
    for (int64_t i = 0; i < count; ++i) gradient[i] *= -std::expm1(-y[i]);
  }
}

// The block's input, padded: in place where its shape allows, else copied.
const float* block_input(const Network& net, const float* x, int rows, Workspace& work) {
  if (net.width[0] == net.padded_width[0] && rows == BLOCK) return x;
  load_rows(x, rows, net.width[0], net.padded_width[0], work.values[0].get());
  return work.values[0].get();
}

// Activations of the layers below `last` into the workspace.
void forward_block(const Network& net, const float* input, int last, Workspace& work) {
  for (int l = 0; l < last; ++l) {
    const int out = net.padded_width[l + 1];
    lg::gemm_nn(input, net.padded_width[l], BLOCK, net.width[l], &net.forward[net.offset[l]], out,
                work.values[l + 1].get(), out, out, l + 1 < net.layers);
    input = work.values[l + 1].get();
  }
}

void backward_block(const Network& net, const float* input, const float* grad, const float* y,
                    int rows, float* dx, float* weight_gradient, Workspace& work) {
  const int last = net.layers, outputs = net.width[last];
  forward_block(net, input, last - 1, work);
  float* values = work.values[last].get();
  std::memcpy(values, grad, sizeof(float) * rows * outputs);
  activation_backward(values, y, (int64_t)rows * outputs, net.activation);
  float *gradient = work.gradient.get(), *next = work.next_gradient.get();
  load_rows(values, rows, outputs, net.padded_width[last], gradient);
  for (int l = last - 1; l >= 0; --l) {
    const int in = net.padded_width[l], out = net.padded_width[l + 1];
    const float* below = l ? work.values[l].get() : input;
    if (weight_gradient)
      lg::gemm_tn(gradient, out, BLOCK, out, below, in, weight_gradient + net.offset[l], in, in);
    if (l == 0 && !dx) break;
    lg::gemm_nn(gradient, out, BLOCK, net.width[l + 1], &net.backward[net.offset[l]], in, next, in,
                in, false);
    if (l) lg::relu_mask(next, below, (int64_t)BLOCK * in);
    std::swap(gradient, next);
  }
  if (dx) store_rows(gradient, rows, net.width[0], net.padded_width[0], dx);
}

// Adds the chunks' padded gradients in order and drops the padding.
void reduce(const Network& net, const float* partial, int64_t chunks, float* result) {
  for (int l = 0; l < net.layers; ++l) {
    const int64_t in = net.width[l], out = net.width[l + 1], stride = net.padded_width[l];
#pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < out; ++j) {
      float* row = result + j * in;
      std::fill_n(row, in, 0.0f);
      for (int64_t c = 0; c < chunks; ++c) {
        const float* add = partial + c * net.size + net.offset[l] + j * stride;
        for (int64_t i = 0; i < in; ++i) row[i] += add[i];
      }
    }
    result += in * out;
  }
}

}  // namespace

// x [rows][widths[0]] -> y [rows][widths[layers]]
LG_API void lg_mlp_forward(const float* x, const float* weights, const int64_t* widths,
                           int64_t layers, int64_t activation, float* y, int64_t rows) {
  const Network net(weights, widths, layers, activation);
  const int64_t inputs = widths[0], outputs = widths[layers];
#pragma omp parallel
  {
    Workspace work(net);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; row += BLOCK) {
      const int count = (int)std::min<int64_t>(BLOCK, rows - row);
      const float* input = block_input(net, x + row * inputs, count, work);
      forward_block(net, input, net.layers, work);
      float* result = y + row * outputs;
      store_rows(work.values[layers].get(), count, (int)outputs, padded(outputs), result);
      activate(result, count * outputs, activation);
    }
  }
}

// grad and y [rows][widths[layers]]; dx [rows][widths[0]] and dw (all weights) may be null.
LG_API void lg_mlp_backward(const float* grad, const float* x, const float* weights,
                            const float* y, const int64_t* widths, int64_t layers,
                            int64_t activation, float* dx, float* dw, int64_t rows) {
  const Network net(weights, widths, layers, activation);
  const int64_t inputs = widths[0], outputs = widths[layers];
  const int64_t share = ((rows + CHUNKS - 1) / CHUNKS + BLOCK - 1) / BLOCK * BLOCK;
  const int64_t chunk_rows = std::max(LEAST_CHUNK, share);
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  const Buffer partial = allocate(dw ? chunks * net.size : 0);
#pragma omp parallel
  {
    Workspace work(net);
#pragma omp for schedule(dynamic, 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      float* sums = dw ? &partial[chunk * net.size] : nullptr;
      if (sums) std::fill_n(sums, net.size, 0.0f);
      const int64_t end = std::min(rows, (chunk + 1) * chunk_rows);
      for (int64_t row = chunk * chunk_rows; row < end; row += BLOCK) {
        const int count = (int)std::min<int64_t>(BLOCK, end - row);
        const float* input = block_input(net, x + row * inputs, count, work);
        backward_block(net, input, grad + row * outputs, y + row * outputs, count,
                       dx ? dx + row * inputs : nullptr, sums, work);
      }
    }
  }
  if (dw) reduce(net, partial.get(), chunks, dw);
}
