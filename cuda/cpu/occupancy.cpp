// Upkeep of an occupancy grid on the CPU; see ../reference/occupancy.py for what each call does.
// Results do not depend on the number of threads.
#include "occupancy.h"

#include <algorithm>
#include <vector>

// sizes: uniform samples, occupied samples, resolution, cascades, seed
LG_EXPORT void lg_occupancy_sample(const uint8_t* bits, const int64_t* sizes, int32_t* cells,
                                   float* positions) {
  const int64_t uniform = sizes[0];
  const int64_t samples = uniform + sizes[1];
  const int32_t resolution = (int32_t)sizes[2];
  const int64_t cell_count = sizes[3] * resolution * resolution * resolution;
  const int32_t bytes = (int32_t)(cell_count / 8);
  const uint32_t seed = (uint32_t)sizes[4];
  std::vector<int32_t> sums(sizes[1] > 0 ? bytes : 0);
  int32_t sum = 0;
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = sum += lg::count_bits(bits[i]);

#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < samples; ++i) {
    const uint32_t word = lg::random_word(seed, (uint32_t)i, 0);
    uint32_t cell = 0;
    if (i < uniform) {
      cell = lg::stratified_cell(word, i, uniform, cell_count);
    } else if (sum > 0) {
      const int32_t rank = (int32_t)lg::random_below(word, (uint32_t)sum);
      cell = lg::occupied_cell(bits, sums.data(), bytes, rank);
    } else {
      cell = lg::random_below(word, (uint32_t)cell_count);
    }
    cells[i] = (int32_t)cell;
    lg::place_in_cell(cell, resolution, seed, (uint32_t)i, positions + 3 * i);
  }
}

namespace {

float decayed(float value, float decay) { return value > 0.0f ? value * decay : value; }

bool within(int32_t cell, int64_t cell_count) { return cell >= 0 && cell < cell_count; }

// Decays the cells drawn, each once however often it was drawn.
void decay_drawn(float* values, const int32_t* cells, int64_t cell_count, int64_t samples,
                 float decay) {
  std::vector<float> before(samples);
  for (int64_t i = 0; i < samples; ++i) {
    before[i] = within(cells[i], cell_count) ? values[cells[i]] : 0.0f;
  }
  for (int64_t i = 0; i < samples; ++i) {
    if (within(cells[i], cell_count)) values[cells[i]] = decayed(before[i], decay);
  }
}

}  // namespace

LG_EXPORT void lg_occupancy_update(float* values, const int32_t* cells, const float* densities,
                                   int64_t cell_count, int64_t samples, float decay, float scale,
                                   int32_t decay_all) {
  if (decay_all) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < cell_count; ++i) values[i] = decayed(values[i], decay);
  } else {
    decay_drawn(values, cells, cell_count, samples, decay);
  }
  for (int64_t i = 0; i < samples; ++i) {
    if (!within(cells[i], cell_count)) continue;
    float& value = values[cells[i]];
    const float candidate = std::min(densities[i] * scale, lg::LARGEST_VALUE);
    if (value >= 0.0f && candidate > value) value = candidate;
  }
}

LG_EXPORT void lg_occupancy_pack(const float* values, float threshold, int32_t resolution,
                                 int32_t cascades, uint8_t* bits, uint8_t* coarse) {
  const int64_t cell_count = (int64_t)resolution * resolution * resolution;
  const int64_t lines = (int64_t)resolution * resolution;
  for (int32_t k = 0; k < cascades; ++k) {
    uint8_t* own = bits + k * cell_count / 8;
#pragma omp parallel for schedule(static)
    for (int64_t line = 0; line < lines; ++line) {
      const int32_t y = (int32_t)(line % resolution);
      const int32_t z = (int32_t)(line / resolution);
      for (int32_t x = 0; x < resolution; x += 8) {
        const int64_t cell = line * resolution + x;
        uint32_t byte = lg::pack_row(values + k * cell_count + cell, threshold);
        if (k > 0) byte |= lg::pool_row(own - cell_count / 8, resolution, x, y, z);
        own[cell / 8] = (uint8_t)byte;
      }
    }
  }
  const int32_t blocks = (int32_t)(cascades * cell_count / 512);
#pragma omp parallel for schedule(static)
  for (int32_t block = 0; block < blocks; ++block) {
    coarse[block] = lg::block_occupied(bits, resolution, block);
  }
}
