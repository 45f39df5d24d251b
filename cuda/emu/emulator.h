// Runs CUDA C++ kernels on the CPU for tests: g++ -DLG_EMU -x c++ -include emulator.h kernel.cu
//
// Each CUDA thread of a block is a fibre; barriers, shuffles, votes, atomics and the tensor-core
// product are emulated. Blocks run one after another in one host thread, so a missing barrier or
// a divergent collective shows as a wrong result or as a reported deadlock, the same every time.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __shared__ static
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct float3 { float x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

namespace emu {

// ---- fibres: a switch of 10 ns where we can write it, the system's (two calls) elsewhere
#if defined(__x86_64__)
extern "C" void emu_switch(void** save, void* to);
asm(".text\n.local emu_switch\nemu_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
struct Context { void* stack_pointer; };
static inline void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  void** top = (void**)((uintptr_t)(stack + size) & ~(uintptr_t)15);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = (void*)entry;
  for (int i = 0; i < 6; ++i) *--top = nullptr;  // the six saved registers
  context.stack_pointer = top;
}
static inline void switch_context(Context& from, Context& to) {
  emu_switch(&from.stack_pointer, to.stack_pointer);
}
#else
typedef ucontext_t Context;
static inline void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = size;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
static inline void switch_context(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

constexpr size_t STACK_BYTES = 65536;
constexpr int SLOTS = 8;  // 64-bit values a lane can publish in one collective

struct Thread {
  Context context;
  dim3 index;
  bool done = false;
  unsigned* waits_for = nullptr;  // generation counter of the barrier this thread sleeps on
  unsigned generation = 0;
};
struct Barrier { unsigned generation = 0, arrived = 0; };

static std::vector<Thread> threads;
static Thread* current;
static Context scheduler;
static dim3 block_index, block_size, grid_size;
static Barrier block_barrier;
static std::vector<Barrier> warp_barriers;
static std::vector<std::vector<uint64_t>> warp_slots;
static void (*body)(void*);
static void* body_argument;
static unsigned alive;

static inline unsigned linear_thread() {
  return current->index.x + block_size.x * (current->index.y + block_size.y * current->index.z);
}
static inline unsigned lane() { return linear_thread() & 31; }
static inline unsigned warp() { return linear_thread() / 32; }

static inline void wait(Barrier& barrier, unsigned needed) {
  if (++barrier.arrived == needed) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  current->waits_for = &barrier.generation;
  current->generation = barrier.generation;
  switch_context(current->context, scheduler);
  current->waits_for = nullptr;
}

static void thread_entry() {
  body(body_argument);
  current->done = true;
  --alive;
  switch_context(current->context, scheduler);
}

static void run_block() {
  const unsigned count = block_size.x * block_size.y * block_size.z;
  const unsigned warps = (count + 31) / 32;
  static std::vector<char> stacks;
  stacks.resize(count * STACK_BYTES);
  threads.assign(count, Thread());
  warp_barriers.assign(warps, Barrier());
  warp_slots.assign(warps, std::vector<uint64_t>(32 * SLOTS));
  block_barrier = Barrier();
  alive = count;
  for (unsigned i = 0; i < count; ++i) {
    const unsigned plane = block_size.x * block_size.y;
    threads[i].index = {i % block_size.x, i / block_size.x % block_size.y, i / plane};
    make_context(threads[i].context, stacks.data() + i * STACK_BYTES, STACK_BYTES, thread_entry);
  }
  while (alive) {
    bool progress = false;
    for (auto& thread : threads) {
      if (thread.done || (thread.waits_for && *thread.waits_for == thread.generation)) continue;
      progress = true;
      current = &thread;
      switch_context(scheduler, thread.context);
    }
    if (progress) continue;
    if (block_barrier.arrived == alive) {  // threads that returned count as arrived, as on a GPU
      block_barrier.arrived = 0;
      ++block_barrier.generation;
      continue;
    }
    std::fprintf(stderr, "emulator: deadlock (divergent barrier or shuffle mask)\n");
    std::abort();
  }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)arguments[I]...);
}

template <class... A>
void launch(void (*kernel)(A...), const int* shape, void** arguments) {
  struct Bound { void (*kernel)(A...); void** arguments; } bound{kernel, arguments};
  body_argument = &bound;
  body = [](void* data) {
    auto* b = (Bound*)data;
    call(b->kernel, b->arguments, std::index_sequence_for<A...>{});
  };
  grid_size = {(unsigned)shape[0], (unsigned)shape[1], (unsigned)shape[2]};
  block_size = {(unsigned)shape[3], (unsigned)shape[4], (unsigned)shape[5]};
  for (unsigned z = 0; z < grid_size.z; ++z)
    for (unsigned y = 0; y < grid_size.y; ++y)
      for (unsigned x = 0; x < grid_size.x; ++x) {
        block_index = {x, y, z};
        run_block();
      }
}

template <class T>
T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves up to 8 bytes");
  const unsigned needed = __builtin_popcount(mask);
  auto& slots = warp_slots[warp()];
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  slots[lane()] = bits;
  wait(warp_barriers[warp()], needed);
  const uint64_t result = slots[source < 32 ? source : lane()];
  wait(warp_barriers[warp()], needed);
  std::memcpy(&value, &result, sizeof value);
  return value;
}

// Every lane of the warp publishes `count` words, then reads those of all lanes through `read`.
template <class Read>
void exchange(const uint32_t* words, int count, Read read) {
  auto& slots = warp_slots[warp()];
  for (int i = 0; i < count; ++i) slots[lane() * SLOTS + i] = words[i];
  wait(warp_barriers[warp()], 32);
  read([&](int from, int word) { return (uint32_t)slots[from * SLOTS + word]; });
  wait(warp_barriers[warp()], 32);
}

}  // namespace emu

#define threadIdx (emu::current->index)
#define blockIdx emu::block_index
#define blockDim emu::block_size
#define gridDim emu::grid_size

static inline void __syncthreads() { emu::wait(emu::block_barrier, emu::alive); }
static inline void __syncwarp(unsigned mask = ~0u) {
  emu::wait(emu::warp_barriers[emu::warp()], __builtin_popcount(mask));
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = (int)emu::lane();
  return emu::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32) {
  const int lane = (int)emu::lane(), source = lane ^ other;
  return emu::shuffle(mask, value, source / width <= lane / width ? source : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32) {
  const int lane = (int)emu::lane(), within = lane & (width - 1);
  return emu::shuffle(mask, value, within >= delta ? lane - delta : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32) {
  const int lane = (int)emu::lane(), within = lane & (width - 1);
  return emu::shuffle(mask, value, within + delta < width ? lane + delta : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
  auto& slots = emu::warp_slots[emu::warp()];
  auto& barrier = emu::warp_barriers[emu::warp()];
  const unsigned needed = __builtin_popcount(mask);
  slots[emu::lane()] = predicate != 0;
  emu::wait(barrier, needed);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) votes |= (unsigned)slots[i] << i;
  emu::wait(barrier, needed);
  return votes;
}
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
  static_assert(sizeof(T) <= 8, "a match compares up to 8 bytes");
  auto& slots = emu::warp_slots[emu::warp()];
  auto& barrier = emu::warp_barriers[emu::warp()];
  const unsigned needed = __builtin_popcount(mask);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  slots[emu::lane()] = bits;
  emu::wait(barrier, needed);
  unsigned same = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) same |= (unsigned)(slots[i] == bits) << i;
  emu::wait(barrier, needed);
  return same;
}
static inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}
static inline unsigned __activemask() { return ~0u; }
static inline int __syncthreads_count(int predicate) {
  static int count;
  __syncthreads();
  count = 0;
  __syncthreads();
  count += predicate != 0;
  __syncthreads();
  return count;
}
static inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }

template <class T> T atomicAdd(T* target, T value) {
  T before = *target;
  *target = before + value;
  return before;
}
template <class T> T atomicMax(T* target, T value) {
  T before = *target;
  if (value > before) *target = value;
  return before;
}
template <class T> T atomicMin(T* target, T value) {
  T before = *target;
  if (value < before) *target = value;
  return before;
}
template <class T> T atomicOr(T* target, T value) {
  T before = *target;
  *target = before | value;
  return before;
}
template <class T> T atomicExch(T* target, T value) {
  T before = *target;
  *target = value;
  return before;
}

template <class T> T __ldg(const T* p) { return *p; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline float __int_as_float(int i) { float f; std::memcpy(&f, &i, 4); return f; }
static inline int __float_as_int(float f) { int i; std::memcpy(&i, &f, 4); return i; }
static inline float __uint_as_float(unsigned i) { float f; std::memcpy(&f, &i, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned i; std::memcpy(&i, &f, 4); return i; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
#define __expf(x) std::exp(x)
#define __logf(x) std::log(x)
static inline float __saturatef(float x) { return x < 0 ? 0 : x > 1 ? 1 : x; }
template <class T> T min(T a, T b) { return a < b ? a : b; }
template <class T> T max(T a, T b) { return a > b ? a : b; }

// Half precision travels as 16 bits; the compiler's _Float16 rounds to nearest even like the GPU.
static inline float half_to_float(uint16_t half) {
  _Float16 value;
  std::memcpy(&value, &half, 2);
  return (float)value;
}
static inline uint16_t float_to_half(float x) {
  const _Float16 value = (_Float16)x;
  uint16_t half;
  std::memcpy(&half, &value, 2);
  return half;
}

// d += a b: m16n8k16 row.col f32.f16.f16.f32 with the fragment layout of the PTX ISA
static inline void emulated_mma(float* d, const uint32_t* a, const uint32_t* b) {
  const uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const unsigned lane = emu::lane();
  emu::exchange(words, 6, [&](auto word) {
    auto half = [&](int from, int i, int high) {
      return half_to_float((uint16_t)(word(from, i) >> (16 * high)));
    };
    for (int e = 0; e < 4; ++e) {
      const int row = lane / 4 + (e & 2 ? 8 : 0), column = (lane % 4) * 2 + (e & 1);
      float sum = d[e];
      for (int k = 0; k < 16; ++k) {
        const int from_a = (row % 8) * 4 + (k % 8) / 2, register_a = (row >= 8) + 2 * (k >= 8);
        const int from_b = column * 4 + (k % 8) / 2, register_b = 4 + (k >= 8);
        sum += half(from_a, register_a, k & 1) * half(from_b, register_b, k & 1);
      }
      d[e] = sum;
    }
  });
}

#define LG_KERNEL(name)                                              \
  extern "C" __attribute__((visibility("default"))) void             \
  emulate_##name(const int* shape, void** arguments) {               \
    emu::launch(name, shape, arguments);                             \
  }
