// Which tiles of the screen a splat can reach: exact up to rounding, which only ever adds.
//
// sigma(x, y) = (a dx^2 + c dy^2) / 2 + b dx dy is the exponent of a splat; it is seen where
// sigma <= log(255 opacity). The box of that ellipse is SnugBox, the test of each tile AccuTile
// (Speedy-Splat, Hanson et al. 2025), here by the smallest sigma over the tile's pixel centres.
#pragma once
#include "scalar.h"

namespace lg {

constexpr int TILE = 16;  // pixels a side

// The maths is written with one rounding a step, so that kernels that ask twice get one answer: a
// compiler is free to fuse products and sums in one kernel and not in the other.

// `largest_sigma` of splat.h with room for rounding
LG_HD float reach_of(float opacity) {
  return multiply_add(logf(255.0f * opacity), 1.0001f, 1e-3f);
}

// (a x^2 + c y^2) / 2 + b x y
LG_HD float sigma_at(float a, float b, float c, float x, float y) {
  const float across = multiply_add(b, y, 0.5f * a * x);
  return multiply_add(across, x, 0.5f * c * y * y);
}

// Smallest sigma over a rectangle of offsets (x0..x1, y0..y1) from the splat's position.
LG_HD float smallest_sigma(float a, float b, float c, float x0, float x1, float y0, float y1) {
  const float ex = maximum(x0, minimum(0.0f, x1)), ey = maximum(y0, minimum(0.0f, y1));
  const float fy = maximum(y0, minimum(-b * ex / c, y1));
  const float fx = maximum(x0, minimum(-b * ey / a, x1));
  return minimum(sigma_at(a, b, c, ex, fy), sigma_at(a, b, c, fx, ey));
}

struct TileBox {
  int x0, x1, y0, y1;  // first tile and one past the last
};

// False: reaches no tile. `row` is a splat of splat.h.
LG_HD bool tile_box(const float* row, float reach, int columns, int rows, TileBox& box) {
  if (!(reach > 0.0f)) return false;
  // the reach has room for rounding, so the box must
  const float slack = multiply_add(1e-3f, row[10], 0.5f);
  const float wide = (row[11] < 0.0f ? -row[11] : row[10]) + slack;
  const float high = (row[11] < 0.0f ? row[10] : row[11]) + slack;
  // clamped as floats: beyond the range of int a conversion is undefined
  const float most_x = (float)columns, most_y = (float)rows, scale = 1.0f / TILE;
  box.x0 = (int)minimum(maximum(floorf((row[0] - wide) * scale), 0.0f), most_x);
  box.x1 = (int)minimum(maximum(floorf((row[0] + wide) * scale) + 1.0f, 0.0f), most_x);
  box.y0 = (int)minimum(maximum(floorf((row[1] - high) * scale), 0.0f), most_y);
  box.y1 = (int)minimum(maximum(floorf((row[1] + high) * scale) + 1.0f, 0.0f), most_y);
  return box.x0 < box.x1 && box.y0 < box.y1;
}

// Whether the splat can be seen in the rectangle of pixel centres.
LG_HD bool reaches(float x, float y, float a, float b, float c, float reach, float x0, float x1,
                   float y0, float y1) {
  return reach > 0.0f && smallest_sigma(a, b, c, x0 - x, x1 - x, y0 - y, y1 - y) <= reach;
}

LG_HD bool reaches_tile(const float* row, float reach, int tile_x, int tile_y) {
  const float x = (float)(tile_x * TILE) + 0.5f, y = (float)(tile_y * TILE) + 0.5f;
  return reaches(row[0], row[1], row[2], row[3], row[4], reach, x, x + (TILE - 1), y,
                 y + (TILE - 1));
}

}  // namespace lg
