// Spherical harmonics of directions (points, 3) on the CPU: values (points, DEGREES^2) and the
// gradient to the directions. Limit: memory, and arithmetic from the fourth band on.
#include "harmonics.h"

namespace {

template <int DEGREES>
void forward(const float* direction, float* value, int64_t points) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < points; ++i) {
    const float* at = direction + 3 * i;
    lg::harmonics<DEGREES>(at[0], at[1], at[2], value + DEGREES * DEGREES * i);
  }
}

template <int DEGREES>
void backward(const float* direction, const float* gradient, float* result, int64_t points) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < points; ++i) {
    const float* at = direction + 3 * i;
    float* to = result + 3 * i;
    const float* row = gradient + DEGREES * DEGREES * i;
    lg::harmonics_gradient<DEGREES>(at[0], at[1], at[2], row, to[0], to[1], to[2]);
  }
}

}  // namespace

// Both return 0, or 1 when the count of bands is not compiled in.

LG_EXPORT int lg_harmonics_forward(const float* direction, float* value, int64_t points,
                                   int degrees) {
  switch (degrees) {
    case 1: forward<1>(direction, value, points); return 0;
    case 2: forward<2>(direction, value, points); return 0;
    case 3: forward<3>(direction, value, points); return 0;
    case 4: forward<4>(direction, value, points); return 0;
    case 5: forward<5>(direction, value, points); return 0;
    default: return 1;
  }
}

LG_EXPORT int lg_harmonics_backward(const float* direction, const float* gradient, float* result,
                                    int64_t points, int degrees) {
  switch (degrees) {
    case 1: backward<1>(direction, gradient, result, points); return 0;
    case 2: backward<2>(direction, gradient, result, points); return 0;
    case 3: backward<3>(direction, gradient, result, points); return 0;
    case 4: backward<4>(direction, gradient, result, points); return 0;
    case 5: backward<5>(direction, gradient, result, points); return 0;
    default: return 1;
  }
}
