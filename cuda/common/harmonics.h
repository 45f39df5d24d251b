// Real spherical harmonics of a unit direction as polynomials, bands 0 to DEGREES - 1, and their
// gradient. Order and signs: band l holds m = -l .. l, with the Condon-Shortley sign. The
// polynomials use x^2 + y^2 + z^2 = 1, so off the sphere they are one extension of many; the
// gradient is that of the polynomials.
#pragma once
#include "scalar.h"

namespace lg {

// Writes DEGREES^2 values.
template <int DEGREES>
LG_HD void harmonics(float x, float y, float z, float* value) {
  const float xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
  value[0] = 0.28209479177387814f;
  if (DEGREES > 1) {
    value[1] = -0.48860251190291987f * y;
    value[2] = 0.48860251190291987f * z;
    value[3] = -0.48860251190291987f * x;
  }
  if (DEGREES > 2) {
    value[4] = 1.0925484305920792f * xy;
    value[5] = -1.0925484305920792f * yz;
    value[6] = 0.9461746957575601f * zz - 0.31539156525251999f;
    value[7] = -1.0925484305920792f * xz;
    value[8] = 0.5462742152960396f * (xx - yy);
  }
  if (DEGREES > 3) {
    value[9] = 0.5900435899266435f * y * (yy - 3.0f * xx);
    value[10] = 2.890611442640554f * xy * z;
    value[11] = 0.4570457994644658f * y * (1.0f - 5.0f * zz);
    value[12] = 0.3731763325901154f * z * (5.0f * zz - 3.0f);
    value[13] = 0.4570457994644658f * x * (1.0f - 5.0f * zz);
    value[14] = 1.445305721320277f * z * (xx - yy);
    value[15] = 0.5900435899266435f * x * (3.0f * yy - xx);
  }
  if (DEGREES > 4) {
    value[16] = 2.5033429417967046f * xy * (xx - yy);
    value[17] = 1.7701307697799304f * yz * (yy - 3.0f * xx);
    value[18] = 0.9461746957575601f * xy * (7.0f * zz - 1.0f);
    value[19] = 0.6690465435572892f * yz * (3.0f - 7.0f * zz);
    value[20] = 3.7024941420321507f * zz * zz - 3.1735664074561294f * zz + 0.31735664074561293f;
    value[21] = 0.6690465435572892f * xz * (3.0f - 7.0f * zz);
    value[22] = 0.47308734787878004f * (xx - yy) * (7.0f * zz - 1.0f);
    value[23] = 1.7701307697799304f * xz * (3.0f * yy - xx);
    value[24] = 0.6258357354491761f * (xx * (xx - 3.0f * yy) - yy * (3.0f * xx - yy));
  }
}

// Gradient by the direction of the sum over k of gradient[k] * value[k]
template <int DEGREES>
LG_HD void harmonics_gradient(float x, float y, float z, const float* gradient, float& dx,
                              float& dy, float& dz) {
  const float xx = x * x, yy = y * y, zz = z * z, xy = x * y, yz = y * z, xz = x * z;
  const float* g = gradient;
  dx = dy = dz = 0.0f;
  if (DEGREES > 1) {
    dx -= 0.48860251190291987f * g[3];
    dy -= 0.48860251190291987f * g[1];
    dz += 0.48860251190291987f * g[2];
  }
  if (DEGREES > 2) {
    dx += 1.0925484305920792f * (g[4] * y - g[7] * z + g[8] * x);
    dy += 1.0925484305920792f * (g[4] * x - g[5] * z - g[8] * y);
    dz += 1.8923493915151202f * g[6] * z - 1.0925484305920792f * (g[5] * y + g[7] * x);
  }
  if (DEGREES > 3) {
    const float a = 0.5900435899266435f, b = 2.890611442640554f, c = 0.4570457994644658f;
    const float e = 1.0f - 5.0f * zz;
    dx += 3.0f * a * (g[15] * (yy - xx) - 2.0f * g[9] * xy) + b * (g[10] * yz + g[14] * xz) +
          c * g[13] * e;
    dy += 3.0f * a * (g[9] * (yy - xx) + 2.0f * g[15] * xy) + b * (g[10] * xz - g[14] * yz) +
          c * g[11] * e;
    dz += b * (g[10] * xy + 0.5f * g[14] * (xx - yy)) -
          10.0f * c * (g[11] * yz + g[13] * xz) +
          0.3731763325901154f * g[12] * (15.0f * zz - 3.0f);
  }
  if (DEGREES > 4) {
    const float a = 2.5033429417967046f, b = 1.7701307697799304f, c = 0.9461746957575601f;
    const float d = 0.6690465435572892f, e = 7.0f * zz - 1.0f, f = 3.0f - 7.0f * zz;
    dx += a * (g[16] * y * (3.0f * xx - yy) + g[24] * x * (xx - 3.0f * yy)) +
          b * (3.0f * g[23] * z * (yy - xx) - 6.0f * g[17] * xy * z) + d * g[21] * z * f +
          c * e * (g[18] * y + g[22] * x);
    dy += a * (g[16] * x * (xx - 3.0f * yy) + g[24] * y * (yy - 3.0f * xx)) +
          b * (3.0f * g[17] * z * (yy - xx) + 6.0f * g[23] * xy * z) + d * g[19] * z * f +
          c * e * (g[18] * x - g[22] * y);
    dz += b * (g[17] * y * (yy - 3.0f * xx) + g[23] * x * (3.0f * yy - xx)) +
          c * (14.0f * g[18] * xy * z + 7.0f * g[22] * z * (xx - yy)) +
          d * (g[19] * y + g[21] * x) * (3.0f - 21.0f * zz) +
          g[20] * z * (14.809976568128603f * zz - 6.3471328149122588f);
  }
}

}  // namespace lg
