// Upkeep of an occupancy grid: every kernel is one thread an element, see each. The grid has K
// cascades of G^3 cells (G = 128: 8 MiB of values and 256 KiB of bits a cascade); it is renewed
// every few steps, limited by memory. What each kernel does is in ../reference/occupancy.py.
#include "device.h"
#include "occupancy.h"

// One thread a byte of `bits`: how many cells of it are occupied
extern "C" __global__ void occupancy_count(const uint8_t* bits, int32_t* counts, int bytes) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < bytes) counts[i] = lg::count_bits(bits[i]);
}
LG_KERNEL(occupancy_count)

// One thread a sample. `sums` are the running sums of occupancy_count, each with its own byte.
extern "C" __global__ void occupancy_sample(const uint8_t* bits, const int32_t* sums,
                                            int32_t* cells, float* positions, int uniform,
                                            int samples, int resolution, int cell_count,
                                            int seed) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= samples) return;
  const uint32_t word = lg::random_word((uint32_t)seed, (uint32_t)i, 0);
  uint32_t cell = 0;
  if (i < uniform) {
    cell = lg::stratified_cell(word, i, uniform, cell_count);
  } else {
    const int bytes = cell_count / 8;
    const uint32_t occupied = (uint32_t)sums[bytes - 1];
    cell = occupied ? lg::occupied_cell(bits, sums, bytes, lg::random_below(word, occupied))
                    : lg::random_below(word, (uint32_t)cell_count);
  }
  cells[i] = (int32_t)cell;
  lg::place_in_cell(cell, resolution, (uint32_t)seed, (uint32_t)i, positions + 3 * (size_t)i);
}
LG_KERNEL(occupancy_sample)

// One thread a cell
extern "C" __global__ void occupancy_decay(float* values, int cell_count, float decay) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < cell_count && values[i] > 0.0f) values[i] *= decay;
}
LG_KERNEL(occupancy_decay)

// One thread a sample: decays its cell, once however often it was drawn, because all its threads
// write the same number. `before` is a copy of the values.
extern "C" __global__ void occupancy_decay_drawn(float* values, const float* before,
                                                 const int32_t* cells, int samples,
                                                 int cell_count, float decay) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= samples || cells[i] < 0 || cells[i] >= cell_count) return;
  const float value = before[cells[i]];
  if (value > 0.0f) values[cells[i]] = value * decay;
}
LG_KERNEL(occupancy_decay_drawn)

// One thread a sample. Numbers that are not negative compare like their bits; cells marked with a
// negative value never change, so looking before the atomic is safe.
extern "C" __global__ void occupancy_raise(float* values, const int32_t* cells,
                                           const float* densities, int samples, int cell_count,
                                           float scale) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= samples || cells[i] < 0 || cells[i] >= cell_count) return;
  const float found = densities[i] * scale;
  float* value = values + cells[i];
  const float now = *value;
  if (!(now >= 0.0f) || !(found > now)) return;  // NaN is not above anything
  atomicMax((int*)value, __float_as_int(lg::minimum(found, lg::LARGEST_VALUE)));
}
LG_KERNEL(occupancy_raise)

// One thread a byte of one cascade; the cascade before it must be packed.
extern "C" __global__ void occupancy_pack(const float* values, const float* threshold,
                                          uint8_t* bits, int resolution, int cascade) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const int bytes = resolution * resolution * (resolution / 8);
  if (i >= bytes) return;
  const int row = resolution / 8;
  uint8_t* own = bits + (size_t)cascade * bytes;
  uint32_t byte = lg::pack_row(values + 8 * ((size_t)cascade * bytes + i), *threshold);
  if (cascade > 0) {
    byte |= lg::pool_row(own - bytes, resolution, i % row * 8, i / row % resolution,
                         i / row / resolution);
  }
  own[i] = (uint8_t)byte;
}
LG_KERNEL(occupancy_pack)

// One thread a block of 8^3 cells, over all cascades
extern "C" __global__ void occupancy_blocks(const uint8_t* bits, uint8_t* coarse, int resolution,
                                            int blocks) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < blocks) coarse[i] = lg::block_occupied(bits, resolution, i);
}
LG_KERNEL(occupancy_blocks)
