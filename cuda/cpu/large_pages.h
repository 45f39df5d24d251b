// Asks for large pages under big arrays that are accessed at random.
#pragma once
#include <cstddef>
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace lg {

// A fresh array of 50 MB costs thousands of page faults, and scattered sums in it as many misses of
// the address translation: ask for large pages where the system gives them on demand.
inline void ask_for_large_pages(void* memory, size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 2 << 20;
  const uintptr_t first = ((uintptr_t)memory + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = ((uintptr_t)memory + bytes) / PAGE * PAGE;
  if (first < end) madvise((void*)first, end - first, MADV_HUGEPAGE);  // a wish: may fail
#endif
}

}  // namespace lg
