// Volume rendering of a grid field with its networks, whole, on the CPU: marching, encoding,
// density and color networks, compositing; and for training the loss and every gradient.
//
// Rays are taken in chunks of CHUNK, marched in rounds of ROUND samples a ray, so that a ray that
// becomes opaque costs no more than its round. Rows are samples; activations of a chunk stay in
// the L2 cache. Gradients of the weights are kept per chunk and summed in order, those of the
// table are added by one thread per level: results do not depend on the number of threads.
//
// The equations are those of cuda/reference/volume_step.py; limits: the networks' multiply-adds,
// then the table's cache misses.
#include <algorithm>
#include <cstring>
#include <vector>

#include "exponential.h"
#include "gemm.h"
#include "grid_block.h"  // after gemm.h, which undefines its own LG_UNROLL
#include "harmonics.h"
#include "march.h"

using namespace lg;

namespace {

constexpr int CHUNK = 128;      // rays
constexpr int ROUND = 8;        // samples of a ray between two tests for opacity
constexpr int BLOCK = 64;       // rows of one pass through a network
constexpr int SLACK = 72;       // rows beyond the end that padded tiles may touch
constexpr int GEOMETRY = 16;    // outputs of the density network
constexpr int HARMONICS = 16;   // inputs of the color network besides those
constexpr int COLOR_INPUT = GEOMETRY + HARMONICS;
constexpr int COLOR = 16;       // outputs of the color network: three, padded to a vector
constexpr float MAX_LOG_DENSITY = 15.0f;

// Mirrors _Model in cuda/volume_step.py.
struct Model {
  const float* table;
  const GridLevel* levels;
  const float* density_weights;
  const float* color_weights;
  const uint8_t* bits;
  const uint8_t* coarse;
  int32_t resolution, cascades;
  float minimum_step, maximum_step, cone;
  float near, far, early_stop;
  float extent;          // side of the cube that the encoding covers, in grid units
  int32_t level_count, features, width, density_layers, color_layers;
  int32_t smooth;        // interpolation of the encoding
  int32_t max_samples;   // of one ray
};

// Mirrors _Loss in cuda/volume_step.py.
struct Loss {
  float huber_delta;        // 0: squared error
  float distortion_weight;  // 0: none
  float gradient_scale;     // factor on all gradients
  float mean;               // 1 / (3 rays)
};

struct Outputs {
  float* color;     // [rays][3]
  float* opacity;   // [rays]
  float* distance;  // [rays], sum of weights times distances
  int32_t* counts;  // [rays], samples that were shaded
};

struct Targets {
  const float* color;       // [rays][3]
  const float* weight;      // [rays] or null
  const float* gain;        // [rays][3] or null
  float* gain_gradient;     // [rays][3] or null
};

inline int padded(int n) { return (n + VECTOR - 1) / VECTOR * VECTOR; }

// One linear layer with the copies that the products want: [in][out] forward, [out][in] backward.
struct Layer {
  int in, out, in_padded, out_padded;
  std::vector<float> forward, backward;
  Layer(const float* w, int inputs, int outputs)
      : in(inputs), out(outputs), in_padded(padded(inputs)), out_padded(padded(outputs)),
        forward((size_t)in_padded * out_padded), backward((size_t)in_padded * out_padded) {
    for (int j = 0; j < out; ++j)
      for (int k = 0; k < in; ++k)
        forward[(size_t)k * out_padded + j] = backward[(size_t)j * in_padded + k] = w[j * in + k];
  }
  size_t gradient_size() const { return (size_t)in_padded * out_padded; }
};

struct Network {
  std::vector<Layer> layers;
  Network(const float* weights, int inputs, int width, int hidden, int outputs) {
    int in = inputs;
    for (int l = 0; l <= hidden; ++l) {
      const int out = l < hidden ? width : outputs;
      layers.emplace_back(weights, in, out);
      weights += (size_t)in * out;
      in = out;
    }
  }
  int hidden() const { return (int)layers.size() - 1; }
  size_t gradient_size() const {
    size_t size = 0;
    for (const Layer& layer : layers) size += layer.gradient_size();
    return size;
  }
  // Sums [in][out] gradients into the caller's [out][in].
  void add_gradient(const float* padded_gradient, float* target) const {
    for (const Layer& layer : layers) {
      for (int j = 0; j < layer.out; ++j)
        for (int k = 0; k < layer.in; ++k)
          target[(size_t)j * layer.in + k] += padded_gradient[(size_t)k * layer.out_padded + j];
      padded_gradient += layer.gradient_size();
      target += (size_t)layer.in * layer.out;
    }
  }
};

// features (count, F) of one level in rows `stride` floats apart
template <int F>
void encode_level(const Model& model, int l, const float* positions, int count, float* features,
                  int stride) {
  const GridLevel& level = model.levels[l];
  for (int i = 0; i < count; i += GRID_BLOCK) {
    const int n = std::min(GRID_BLOCK, count - i);
    GridBlock<3> block;
    locate_block<3>(positions + 3 * (size_t)i, level, model.smooth, n, block);
    weigh_block<3>(n, block);
    gather_block<3, F>(model.table + F * (size_t)level.offset, n, block,
                       features + (size_t)i * stride, stride);
  }
}

// Adds the gradient (count, F) of one level's features to the table's gradient.
template <int F>
void scatter_level(const Model& model, int l, const float* positions, int count,
                   const float* gradient, float* table_gradient) {
  const GridLevel& level = model.levels[l];
  for (int i = 0; i < count; i += GRID_BLOCK) {
    const int n = std::min(GRID_BLOCK, count - i);
    GridBlock<3> block;
    locate_block<3>(positions + 3 * (size_t)i, level, model.smooth, n, block);
    weigh_block<3>(n, block);
    scatter_block<3, F>(gradient + F * (size_t)i, F, n, block,
                        table_gradient + F * (size_t)level.offset);
  }
}

struct Buffer {
  std::vector<float> data;
  float* need(size_t count) {
    if (count > data.size()) data.resize(count + count / 2);
    return data.data();
  }
};

// Activations of a set of samples, layer by layer.
struct Activations {
  Buffer input, output;
  std::vector<Buffer> hidden;
};

struct Ray {
  RayState state;
  float transmittance;
  int shaded;
  int32_t next, pending;  // candidates of the present cell that are still to come
  bool ended;
};

struct Segment { int ray, first, count; };  // consecutive samples of one ray in one round

struct Work {
  Buffer positions, distances, steps;     // of all evaluated samples
  Activations density;                    // of all evaluated samples
  Buffer kept_distances, kept_steps, weights;
  Activations kept, color;                // of the samples that are shaded, in ray order
  Buffer log_density_gradient, sample_gradient, distortion;
  Buffer first_gradient, second_gradient;
  std::vector<Ray> rays;
  std::vector<int> live, first, source;
  std::vector<Segment> segments;
};

// What the table's gradient needs of a chunk: positions in the encoding's cube and the gradient
// of the encoding, level by level.
struct Chunk {
  Buffer positions, gradient;
  std::vector<float> weights_gradient;
  int count = 0;
  double loss = 0;
};

void forward(const Network& network, Activations& a, int begin, int rows) {
  for (int row = begin; row < begin + rows; row += BLOCK) {
    const int count = std::min(BLOCK, begin + rows - row);
    const Layer& first = network.layers[0];
    const float* input = a.input.data.data() + (size_t)row * first.in_padded;
    int stride = first.in_padded;
    for (size_t l = 0; l < network.layers.size(); ++l) {
      const Layer& layer = network.layers[l];
      const bool last = l + 1 == network.layers.size();
      Buffer& target = last ? a.output : a.hidden[l];
      float* out = target.data.data() + (size_t)row * layer.out_padded;
      gemm_nn(input, stride, count, layer.in_padded, layer.forward.data(), layer.out_padded, out,
              layer.out_padded, layer.out_padded, !last);
      input = out;
      stride = layer.out_padded;
    }
  }
}

void reserve(const Network& network, Activations& a, size_t rows) {
  a.input.need(rows * network.layers[0].in_padded);
  a.hidden.resize(network.hidden());
  for (int l = 0; l < network.hidden(); ++l) a.hidden[l].need(rows * network.layers[l].out_padded);
  a.output.need(rows * network.layers.back().out_padded);
}

// Gradients of one block of rows. `output` holds the gradient of the outputs and is consumed;
// weight gradients are added to `weights`; the gradient of the input lands in `input`.
void backward(const Network& network, const Activations& a, int row, int count, float* output,
              float* spare, float* weights, float* input, int input_columns) {
  size_t offset = network.gradient_size();
  for (int l = (int)network.layers.size() - 1; l >= 0; --l) {
    const Layer& layer = network.layers[l];
    offset -= layer.gradient_size();
    const Buffer& source = l ? a.hidden[l - 1] : a.input;
    const float* below = source.data.data() + (size_t)row * layer.in_padded;
    gemm_tn(below, layer.in_padded, count, layer.in_padded, output, layer.out_padded,
            weights + offset, layer.out_padded, layer.out_padded);
    float* target = l ? spare : input;
    const int columns = l ? layer.in_padded : input_columns;
    gemm_nn(output, layer.out_padded, count, layer.out, layer.backward.data(), layer.in_padded,
            target, columns, columns, false);
    if (l) relu_mask(target, below, (int64_t)count * layer.in_padded);
    std::swap(output, spare);
  }
}

template <int F>
struct Renderer {
  const Model& model;
  const MarchParams march;
  const Network density, color;
  const int encoding;  // padded width

  explicit Renderer(const Model& m)
      : model(m),
        march(m.resolution, m.cascades, m.minimum_step, m.maximum_step, m.cone),
        density(m.density_weights, m.level_count * F, m.width, m.density_layers, GEOMETRY),
        color(m.color_weights, COLOR_INPUT, m.width, m.color_layers, 3),
        encoding(padded(m.level_count * F)) {}

  float optical_depth(float log_density, float step) const {
    return exponential(std::min(log_density, MAX_LOG_DENSITY)) * step;
  }

  void begin(Work& work, const float* origins, const float* directions, const float* jitter,
             int count) const {
    work.rays.resize(count);
    work.live.clear();
    work.segments.clear();
    for (int r = 0; r < count; ++r) {
      Ray& ray = work.rays[r];
      ray = Ray();
      ray.transmittance = 1.0f;
      std::memcpy(ray.state.o, origins + 3 * r, 12);
      std::memcpy(ray.state.d, directions + 3 * r, 12);
      const float start = jitter ? jitter[r] : 0.5f;
      if (ray_begin(march, ray.state, model.near, model.far, start)) work.live.push_back(r);
    }
  }

  // Marches every live ray by up to ROUND samples and returns the new number of samples.
  int march_round(Work& work, int evaluated) const {
    const size_t capacity = evaluated + work.live.size() * ROUND + SLACK;
    work.positions.need(3 * capacity);
    work.distances.need(capacity);
    work.steps.need(capacity);
    for (int r : work.live) {
      Ray& ray = work.rays[r];
      const int begin = evaluated;
      const int room = std::min(ROUND, model.max_samples - ray.shaded);
      while (evaluated - begin < room) {
        if (!ray.pending)
          ray.pending = ray_next_run(march, model.bits, model.coarse, ray.state, &ray.next);
        if (!ray.pending) {
          ray.ended = true;
          break;
        }
        --ray.pending;
        float point[3];
        const float distance = lattice_distance(march, ray.state, ray.next++);
        ray_point(ray.state, distance, point);
        work.distances.data[evaluated] = distance;
        work.steps.data[evaluated] = step_length(march, distance);
        for (int d = 0; d < 3; ++d)
          work.positions.data[3 * (size_t)evaluated + d] =
              clamp_unit((point[d] - 0.5f) / model.extent + 0.5f);
        ++evaluated;
      }
      if (ray.shaded + evaluated - begin >= model.max_samples) ray.ended = true;
      if (evaluated > begin) work.segments.push_back({r, begin, evaluated - begin});
    }
    return evaluated;
  }

  void evaluate_density(Work& work, int begin, int count) const {
    reserve(density, work.density, begin + count + SLACK);
    float* input = work.density.input.data.data() + (size_t)begin * encoding;
    const int used = model.level_count * F;
    if (used < encoding)
      for (int i = 0; i < count; ++i)
        std::memset(input + (size_t)i * encoding + used, 0, 4 * (encoding - used));
    const float* positions = work.positions.data.data() + 3 * (size_t)begin;
    for (int l = 0; l < model.level_count; ++l)
      encode_level<F>(model, l, positions, count, input + F * l, encoding);
    forward(density, work.density, begin, count);
  }

  // Marches and evaluates until every ray has left the box or is opaque; cuts the segments there.
  int evaluate(Work& work) const {
    int evaluated = 0;
    while (!work.live.empty()) {
      const int begin = evaluated;
      const size_t first_segment = work.segments.size();
      evaluated = march_round(work, evaluated);
      evaluate_density(work, begin, evaluated - begin);
      for (size_t s = first_segment; s < work.segments.size(); ++s) {
        Segment& segment = work.segments[s];
        Ray& ray = work.rays[segment.ray];
        int kept = 0;
        for (; kept < segment.count && ray.transmittance > model.early_stop; ++kept) {
          const int i = segment.first + kept;
          const float log_density = work.density.output.data[GEOMETRY * (size_t)i];
          ray.transmittance *= exponential(-optical_depth(log_density, work.steps.data[i]));
        }
        segment.count = kept;
        ray.shaded += kept;
      }
      auto done = [&](int r) {
        return work.rays[r].ended || !(work.rays[r].transmittance > model.early_stop);
      };
      work.live.erase(std::remove_if(work.live.begin(), work.live.end(), done), work.live.end());
    }
    return evaluated;
  }

  // Gathers the shaded samples in ray order and evaluates their colors. Returns their number.
  int shade(Work& work, bool keep_activations) const {
    const int rays = (int)work.rays.size();
    work.first.assign(rays + 1, 0);
    for (int r = 0; r < rays; ++r) work.first[r + 1] = work.first[r] + work.rays[r].shaded;
    const int count = work.first[rays];
    work.source.resize(count + 1);
    std::vector<int> cursor(work.first.begin(), work.first.end());
    for (const Segment& segment : work.segments)
      for (int i = 0; i < segment.count; ++i)
        work.source[cursor[segment.ray]++] = segment.first + i;
    reserve(color, work.color, count + SLACK);
    if (keep_activations) reserve(density, work.kept, count + SLACK);
    float* distances = work.kept_distances.need(count + SLACK);
    float* steps = work.kept_steps.need(count + SLACK);
    float direction[HARMONICS];
    for (int r = 0; r < rays; ++r) {
      if (work.first[r] == work.first[r + 1]) continue;
      const float* d = work.rays[r].state.d;
      harmonics<4>(d[0], d[1], d[2], direction);
      for (int i = work.first[r]; i < work.first[r + 1]; ++i) {
        const size_t from = work.source[i];
        float* input = work.color.input.data.data() + COLOR_INPUT * (size_t)i;
        std::memcpy(input, &work.density.output.data[GEOMETRY * from], 4 * GEOMETRY);
        std::memcpy(input + GEOMETRY, direction, sizeof direction);
        distances[i] = work.distances.data[from];
        steps[i] = work.steps.data[from];
        if (keep_activations) copy_activations(work, from, i);
      }
    }
    forward(color, work.color, 0, count);
    return count;
  }

  void copy_activations(Work& work, size_t from, size_t to) const {
    auto copy = [&](const Buffer& source, Buffer& target, size_t width) {
      std::memcpy(&target.data[to * width], &source.data[from * width], 4 * width);
    };
    copy(work.density.input, work.kept.input, encoding);
    for (int l = 0; l < density.hidden(); ++l)
      copy(work.density.hidden[l], work.kept.hidden[l], density.layers[l].out_padded);
  }

  // Colors of one ray; samples' network outputs become sRGB in place, `weights` is filled.
  float composite(Work& work, int ray, const float* background, float* pixel, float* distance) const {
    float transmittance = 1.0f;
    pixel[0] = pixel[1] = pixel[2] = *distance = 0.0f;
    for (int i = work.first[ray]; i < work.first[ray + 1]; ++i) {
      float* rgb = &work.color.output.data[COLOR * (size_t)i];
      const float log_density = work.color.input.data[COLOR_INPUT * (size_t)i];
      const float depth = optical_depth(log_density, work.kept_steps.data[i]);
      const float weight = transmittance * (1.0f - exponential(-depth));
      for (int k = 0; k < 3; ++k) {
        rgb[k] = 1.0f / (1.0f + exponential(-rgb[k]));
        pixel[k] += weight * rgb[k];
      }
      work.weights.data[i] = weight;
      *distance += weight * work.kept_distances.data[i];
      transmittance -= weight;
    }
    if (background && transmittance > model.early_stop)
      for (int k = 0; k < 3; ++k) pixel[k] += transmittance * background[k];
    return transmittance;
  }

  void write(const Work& work, int ray, int index, const float* pixel, float distance,
             float transmittance, const Outputs& out) const {
    std::memcpy(out.color + 3 * (size_t)index, pixel, 12);
    out.opacity[index] = 1.0f - transmittance;
    out.distance[index] = distance;
    out.counts[index] = work.first[ray + 1] - work.first[ray];
  }

  void render(Work& work, const float* background, int begin, const Outputs& out) const {
    evaluate(work);
    work.weights.need(shade(work, false) + SLACK);
    for (int r = 0; r < (int)work.rays.size(); ++r) {
      float pixel[3], distance;
      const float* behind = background ? background + 3 * (size_t)(begin + r) : nullptr;
      const float transmittance = composite(work, r, behind, pixel, &distance);
      write(work, r, begin + r, pixel, distance, transmittance, out);
    }
  }

  // d loss / d pixel of one ray; adds to the chunk's loss and to the gradient of the gain.
  void loss_gradient(const float* pixel, int index, const Targets& targets, const Loss& loss,
                     double* total, float gradient[3]) const {
    const float weight = targets.weight ? targets.weight[index] : 1.0f;
    for (int k = 0; k < 3; ++k) {
      const size_t place = 3 * (size_t)index + k;
      const float gain = targets.gain ? targets.gain[place] : 1.0f;
      const float error = gain * pixel[k] - targets.color[place];
      const float delta = loss.huber_delta, size = std::fabs(error);
      float slope = 2.0f * error, value = error * error;
      if (delta > 0.0f) {
        const bool inside = size <= delta;
        slope = inside ? error / delta : (error > 0 ? 1.0f : -1.0f);
        value = inside ? 0.5f * error * error / delta : size - 0.5f * delta;
      }
      slope *= weight * loss.mean * loss.gradient_scale;
      *total += weight * value;
      gradient[k] = gain * slope;
      if (targets.gain_gradient) targets.gain_gradient[place] = slope * pixel[k];
    }
  }

  // Adds d(distortion) / d(weight) to `slope`: sum_ij w_i w_j |t_i - t_j| + sum_i w_i^2 dt_i / 3.
  double distortion_gradient(const Work& work, int ray, float scale, float* slope) const {
    const int begin = work.first[ray], end = work.first[ray + 1];
    const float *w = work.weights.data.data(), *t = work.kept_distances.data.data();
    float total_weight = 0, total_moment = 0, weight = 0, moment = 0;
    for (int i = begin; i < end; ++i) {
      total_weight += w[i];
      total_moment += w[i] * t[i];
    }
    double value = 0;
    for (int i = begin; i < end; ++i) {
      const float before = t[i] * weight - moment;
      weight += w[i];
      moment += w[i] * t[i];
      const float after = (total_moment - moment) - t[i] * (total_weight - weight);
      const float size = w[i] * work.kept_steps.data[i];
      slope[i] += scale * (2.0f * (before + after) + 2.0f / 3.0f * size);
      value += w[i] * (before + after + size / 3.0f);
    }
    return value;
  }

  // Gradients of one ray's samples: color outputs are replaced by theirs, log densities' are kept.
  void ray_backward(Work& work, int ray, const float gradient[3], const float* background,
                    float transmittance) const {
    float* slope = work.sample_gradient.data.data();
    float* log_density = work.log_density_gradient.data.data();
    float rest = 0.0f;
    if (background && transmittance > model.early_stop)
      for (int k = 0; k < 3; ++k) rest += transmittance * gradient[k] * background[k];
    for (int i = work.first[ray]; i < work.first[ray + 1]; ++i) {
      const float* rgb = &work.color.output.data[COLOR * (size_t)i];
      for (int k = 0; k < 3; ++k) slope[i] += gradient[k] * rgb[k];
      rest += work.weights.data[i] * slope[i];
    }
    float remaining = 1.0f;
    for (int i = work.first[ray]; i < work.first[ray + 1]; ++i) {
      float* rgb = &work.color.output.data[COLOR * (size_t)i];
      const float weight = work.weights.data[i];
      remaining -= weight;
      rest -= weight * slope[i];
      const float value = work.color.input.data[COLOR_INPUT * (size_t)i];
      const float depth = optical_depth(value, work.kept_steps.data[i]);
      log_density[i] = value < MAX_LOG_DENSITY ? depth * (remaining * slope[i] - rest) : 0.0f;
      for (int k = 0; k < 3; ++k) rgb[k] = gradient[k] * weight * rgb[k] * (1.0f - rgb[k]);
      for (int k = 3; k < COLOR; ++k) rgb[k] = 0.0f;
    }
  }

  void networks_backward(Work& work, int count, Chunk& chunk) const {
    const int widest = std::max(std::max(padded(model.width), encoding), COLOR_INPUT);
    float* first = work.first_gradient.need((size_t)(BLOCK + 8) * widest);
    float* second = work.second_gradient.need((size_t)(BLOCK + 8) * widest);
    float* weights = chunk.weights_gradient.data();
    chunk.gradient.need((size_t)model.level_count * F * count + SLACK);
    std::vector<float> geometry((size_t)(BLOCK + 8) * GEOMETRY);
    std::vector<float> encoded((size_t)(BLOCK + 8) * encoding);
    for (int row = 0; row < count; row += BLOCK) {
      const int rows = std::min(BLOCK, count - row);
      std::memcpy(first, &work.color.output.data[COLOR * (size_t)row], 4 * COLOR * rows);
      // the directions are given, so only the geometry half of the color's input is asked for
      backward(color, work.color, row, rows, first, second, weights + density.gradient_size(),
               geometry.data(), GEOMETRY);
      for (int i = 0; i < rows; ++i)
        geometry[GEOMETRY * i] += work.log_density_gradient.data[row + i];
      std::memcpy(first, geometry.data(), 4 * GEOMETRY * rows);
      backward(density, work.kept, row, rows, first, second, weights, encoded.data(), encoding);
      for (int l = 0; l < model.level_count; ++l) {
        float* target = &chunk.gradient.data[((size_t)l * count + row) * F];
        for (int i = 0; i < rows; ++i)
          std::memcpy(target + F * i, &encoded[(size_t)i * encoding + F * l], 4 * F);
      }
    }
  }

  void train(Work& work, const float* background, int begin, const Targets& targets,
             const Loss& loss, const Outputs& out, Chunk& chunk) const {
    evaluate(work);
    const int count = shade(work, true);
    work.weights.need(count + SLACK);
    work.log_density_gradient.need(count + SLACK);
    std::fill_n(work.sample_gradient.need(count + SLACK), count, 0.0f);
    chunk.weights_gradient.assign(density.gradient_size() + color.gradient_size(), 0.0f);
    chunk.count = count;
    chunk.loss = 0;
    const float distortion_scale = 3 * loss.mean * loss.distortion_weight * loss.gradient_scale;
    float* positions = chunk.positions.need(3 * (size_t)count + SLACK);
    for (int i = 0; i < count; ++i)
      std::memcpy(positions + 3 * (size_t)i, &work.positions.data[3 * (size_t)work.source[i]], 12);
    for (int r = 0; r < (int)work.rays.size(); ++r) {
      float pixel[3], distance, gradient[3];
      const float* behind = background ? background + 3 * (size_t)(begin + r) : nullptr;
      const float transmittance = composite(work, r, behind, pixel, &distance);
      write(work, r, begin + r, pixel, distance, transmittance, out);
      loss_gradient(pixel, begin + r, targets, loss, &chunk.loss, gradient);
      if (loss.distortion_weight > 0)
        chunk.loss += 3 * loss.distortion_weight *
                      distortion_gradient(work, r, distortion_scale, work.sample_gradient.data.data());
      ray_backward(work, r, gradient, behind, transmittance);
    }
    networks_backward(work, count, chunk);
  }
};

Work& thread_work() {
  static thread_local Work work;
  return work;
}

template <int F>
void render_all(const Model& model, const float* origins, const float* directions,
                const float* jitter, const float* background, int64_t rays, const Outputs& out) {
  const Renderer<F> renderer(model);
#pragma omp parallel for schedule(dynamic, 2)
  for (int64_t begin = 0; begin < rays; begin += CHUNK) {
    Work& work = thread_work();
    renderer.begin(work, origins + 3 * begin, directions + 3 * begin,
                   jitter ? jitter + begin : nullptr, (int)std::min<int64_t>(CHUNK, rays - begin));
    renderer.render(work, background, (int)begin, out);
  }
}

template <int F>
double train_all(const Model& model, const float* origins, const float* directions,
                 const float* jitter, const float* background, int64_t rays,
                 const Targets& targets, const Loss& loss, const Outputs& out,
                 float* table_gradient, float* density_gradient, float* color_gradient) {
  const Renderer<F> renderer(model);
  const int64_t count = (rays + CHUNK - 1) / CHUNK;
  // kept between calls, so that a step allocates nothing; one trainer at a time in a thread
  static thread_local std::vector<Chunk> kept_chunks;
  std::vector<Chunk>& chunks = kept_chunks;
  if ((int64_t)chunks.size() < count) chunks.resize(count);
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t c = 0; c < count; ++c) {
    Work& work = thread_work();
    const int64_t begin = c * CHUNK;
    renderer.begin(work, origins + 3 * begin, directions + 3 * begin,
                   jitter ? jitter + begin : nullptr, (int)std::min<int64_t>(CHUNK, rays - begin));
    renderer.train(work, background, (int)begin, targets, loss, out, chunks[c]);
  }
  // the finest levels miss the cache most and so take longest: they go first
#pragma omp parallel for schedule(dynamic, 1)
  for (int l = model.level_count - 1; l >= 0; --l)
    for (int64_t c = 0; c < count; ++c)
      if (chunks[c].count)
        scatter_level<F>(model, l, chunks[c].positions.data.data(), chunks[c].count,
                         &chunks[c].gradient.data[(size_t)l * chunks[c].count * F],
                         table_gradient);
  double total = 0;
  for (int64_t c = 0; c < count; ++c) {
    const float* gradient = chunks[c].weights_gradient.data();
    renderer.density.add_gradient(gradient, density_gradient);
    renderer.color.add_gradient(gradient + renderer.density.gradient_size(), color_gradient);
    total += chunks[c].loss;
  }
  return total * loss.mean;
}

}  // namespace

// Renders rays: jitter and background may be null.
LG_EXPORT void lg_volume_render(const Model* model, const float* origins, const float* directions,
                                const float* jitter, const float* background, int64_t rays,
                                const Outputs* out) {
  switch (model->features) {
    case 1: return render_all<1>(*model, origins, directions, jitter, background, rays, *out);
    case 2: return render_all<2>(*model, origins, directions, jitter, background, rays, *out);
    case 4: return render_all<4>(*model, origins, directions, jitter, background, rays, *out);
    default: return render_all<8>(*model, origins, directions, jitter, background, rays, *out);
  }
}

// Renders rays, returns the loss and adds the scaled gradients to the three buffers.
LG_EXPORT double lg_volume_train(const Model* model, const float* origins,
                                 const float* directions, const float* jitter,
                                 const float* background, int64_t rays, const Targets* targets,
                                 const Loss* loss, const Outputs* out, float* table_gradient,
                                 float* density_gradient, float* color_gradient) {
  auto run = [&](auto train) {
    return train(*model, origins, directions, jitter, background, rays, *targets, *loss, *out,
                 table_gradient, density_gradient, color_gradient);
  };
  switch (model->features) {
    case 1: return run(train_all<1>);
    case 2: return run(train_all<2>);
    case 4: return run(train_all<4>);
    default: return run(train_all<8>);
  }
}
