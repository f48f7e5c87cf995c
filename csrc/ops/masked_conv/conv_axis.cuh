// conv_axis.cuh: which input coordinate a kernel tap reads for an output coordinate, along one axis
// of an image.
//
// Forward and input gradient become one affine map: output pixel q of a phase, tap j -> input
// in_first + q * in_step + j * tap_step. The gradient of a strided convolution is not affine as a
// whole, since input position h receives from output (h + padding - k * dilation) / stride only
// where that divides. It splits into `stride` phases (h mod stride); in each, the taps that divide
// are an arithmetic progression, the others contribute nothing and are never visited.
#pragma once
#include <cstdint>

#include "../../base/macros.h"

namespace hn {

// Kernel, stride, padding and dilation of one axis, and the size of the map that is read and of the
// one that is written.
struct ConvAxis {
  int32_t kernel, stride, padding, dilation, read_size, write_size;
};

struct AxisPhase {
  int32_t count;  // output coordinates: write_first + q * write_step for q < count
  int32_t write_first, write_step;
  int32_t read_size, read_first,
      read_step;           // q and tap j read read_first + q * read_step + j * tap_step
  int32_t taps, tap_step;  // j < taps; a coordinate outside [0, read_size) reads zero
  int32_t kernel_first,
      kernel_step;  // tap j is position kernel_first + j * kernel_step of the kernel
};

HN_HD AxisPhase forward_phase(const ConvAxis& a) {
  return {a.write_size, 0, 1, a.read_size, -a.padding, a.stride, a.kernel, a.dilation, 0, 1};
}

// Number of phases of the gradient; phase p writes the coordinates p, p + stride, ...
HN_HD int32_t gradient_phases(const ConvAxis& a) { return a.stride < a.write_size ? a.stride : a.write_size; }

HN_HD AxisPhase gradient_phase(const ConvAxis& a, int32_t phase) {
  int32_t common = a.stride,
          rest = a.dilation % a.stride;  // their greatest common divisor, by Euclid
  while (rest != 0) {
    const int32_t next = common % rest;
    common = rest;
    rest = next;
  }
  const int32_t period = a.stride / common;
  int32_t first = 0;
  while (first < period && first < a.kernel && (phase + a.padding - first * a.dilation) % a.stride != 0) ++first;
  const bool any = first < period && first < a.kernel;
  AxisPhase out;
  out.count = (a.write_size - phase + a.stride - 1) / a.stride;
  out.write_first = phase;
  out.write_step = a.stride;
  out.read_size = a.read_size;
  out.read_first = any ? (phase + a.padding - first * a.dilation) / a.stride : 0;
  out.read_step = 1;
  out.taps = any ? (a.kernel - first + period - 1) / period : 0;
  out.tap_step = -(a.dilation / common);
  out.kernel_first = first;
  out.kernel_step = period;
  return out;
}

}  // namespace hn
