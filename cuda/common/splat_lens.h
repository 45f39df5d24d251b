// Cameras of splatting: pose, size, and what their lenses do to points. Lenses: core/lenses.py.
#pragma once
#include "scalar.h"

namespace lg {

constexpr float LARGEST_ANGLE = 3.0f;      // of a fisheye's sigma points; behind it the map tears
constexpr float HUGE_VALUE = 1e18f;        // what is not below counts as not finite
constexpr float LARGEST_FLOAT = 3.402823466e38f;

// Values of core.CameraModel
constexpr int PINHOLE = 0, OPENCV = 1, FISHEYE = 2, ORTHOGRAPHIC = 4;

// Mirrors SplatCamera.numbers of cuda/splatting/camera.py.
struct SplatCamera {
  float fx, fy, cx, cy;      // pixels
  float width, height;       // pixels
  float near, blur, limit;   // scene units; pixels^2; of the lens
  float guard;               // OPENCV: no sigma point goes farther out on the plane z = 1
  float lens[8];
};

struct SplatPose {
  float r[9], t[3];          // world to camera, rows
};

LG_HD SplatPose load_pose(const float* w) {  // (3, 4)
  SplatPose pose;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) pose.r[3 * i + j] = w[4 * i + j];
    pose.t[i] = w[4 * i + 3];
  }
  return pose;
}

LG_HD bool usable(float x) { return fabsf(x) < HUGE_VALUE; }  // false for NaN

// Gradients that overflow count as 0.
LG_HD float finite_or_zero(float x) { return fabsf(x) <= LARGEST_FLOAT ? x : 0.0f; }

// ---- lenses: lens coordinates of a point in camera axes, and the pull-back of their gradient

LG_HD void radial_factor(const float* k, float square, float& factor, float& slope) {
  const float above = 1.0f + square * (k[0] + square * (k[1] + square * k[4]));
  const float above_slope = k[0] + square * (2.0f * k[1] + 3.0f * square * k[4]);
  const float below = 1.0f + square * (k[5] + square * (k[6] + square * k[7]));
  const float below_slope = k[5] + square * (2.0f * k[6] + 3.0f * square * k[7]);
  factor = above / below;
  slope = (above_slope - factor * below_slope) / below;
}

LG_HD void fisheye_radius(const SplatCamera& k, float theta, float& value, float& slope) {
  const float inside = minimum(theta, k.limit), square = inside * inside;
  value = inside * (1.0f + square * (k.lens[0] + square * (k.lens[1] + square * (k.lens[2] +
                                                                           square * k.lens[3]))));
  slope = 1.0f + square * (3.0f * k.lens[0] + square * (5.0f * k.lens[1] + square * (7.0f * k.lens[2] +
                                                                                9.0f * square * k.lens[3])));
  if (theta > k.limit) {
    slope = value / k.limit;
    value *= theta / k.limit;
  }
}

// Where a point lies on the plane z = 1, held inside the guard: sigma points beside or behind the
// camera would make a splat as large as the world.
struct Plane {
  float x, y, inverse, shrink;  // 1 / z; below 1 where held
  bool ahead;
};

LG_HD Plane on_plane(const SplatCamera& k, const float* p) {
  Plane g;
  g.ahead = p[2] > k.near;
  g.inverse = 1.0f / maximum(p[2], k.near);
  g.x = p[0] * g.inverse;
  g.y = p[1] * g.inverse;
  const float square = g.x * g.x + g.y * g.y;
  g.shrink = square > k.guard * k.guard ? k.guard / sqrtf(square) : 1.0f;
  g.x *= g.shrink;
  g.y *= g.shrink;
  return g;
}

template <int MODEL>
LG_HD bool lens_point(const SplatCamera& k, const float* p, float& u, float& v) {
  if (MODEL == FISHEYE) {
    const float radius = sqrtf(p[0] * p[0] + p[1] * p[1] + 1e-30f), theta = atan2f(radius, p[2]);
    float value, slope;
    fisheye_radius(k, theta, value, slope);
    u = p[0] * (value / radius);
    v = p[1] * (value / radius);
    return theta < LARGEST_ANGLE;
  }
  const Plane g = on_plane(k, p);
  const float x = g.x, y = g.y, square = x * x + y * y;
  float factor, slope;
  radial_factor(k.lens, minimum(square, k.limit), factor, slope);
  u = x * factor + 2.0f * k.lens[2] * x * y + k.lens[3] * (square + 2.0f * x * x);
  v = y * factor + 2.0f * k.lens[3] * x * y + k.lens[2] * (square + 2.0f * y * y);
  return true;
}

// d_p += J^T (du, dv)
template <int MODEL>
LG_HD void lens_pullback(const SplatCamera& k, const float* p, float du, float dv, float* d_p) {
  if (MODEL == FISHEYE) {
    const float flat = p[0] * p[0] + p[1] * p[1] + 1e-30f, radius = sqrtf(flat);
    const float whole = flat + p[2] * p[2], theta = atan2f(radius, p[2]);
    float value, slope;
    fisheye_radius(k, theta, value, slope);
    const float ratio = value / radius, along = (p[0] * du + p[1] * dv) / radius;
    const float by_radius = slope * p[2] / whole;  // of the image radius
    // (x, y) / radius turns, the radius grows: near the axis both factors are slope / z
    const float turn = (by_radius - ratio) / radius;
    d_p[0] += ratio * du + p[0] * along * turn;
    d_p[1] += ratio * dv + p[1] * along * turn;
    d_p[2] -= along * slope * radius / whole;
    return;
  }
  const Plane g = on_plane(k, p);
  const float x = g.x, y = g.y, square = x * x + y * y, p1 = k.lens[2], p2 = k.lens[3];
  float factor, slope;
  radial_factor(k.lens, minimum(square, k.limit), factor, slope);
  slope = square < k.limit ? 2.0f * slope : 0.0f;
  const float both = slope * x * y + 2.0f * (p1 * x + p2 * y);
  float dx = du * (factor + slope * x * x + 2.0f * p1 * y + 6.0f * p2 * x) + dv * both;
  float dy = dv * (factor + slope * y * y + 6.0f * p1 * y + 2.0f * p2 * x) + du * both;
  if (g.shrink < 1.0f) {  // held on a circle: only what goes along it remains
    const float outwards = (dx * x + dy * y) / square;
    dx = (dx - outwards * x) * g.shrink;
    dy = (dy - outwards * y) * g.shrink;
  }
  d_p[0] += dx * g.inverse;
  d_p[1] += dy * g.inverse;
  if (g.ahead) d_p[2] -= (dx * x + dy * y) / g.shrink * g.inverse;
}

}  // namespace lg
