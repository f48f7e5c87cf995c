// generate_weight.h: write a layer's weights, or its sign plane, from (seed, layer, redraw). No masking here.
#pragma once
#include <cstdint>

#include "../../base/dtype.h"
#include "../../base/layout.cuh"
#include "../../base/source.cuh"

namespace hn {

struct GenerateWeightParams {
  WeightSource source;  // any kind but kStored and kSigns; kSigns is given as kConstant with `signs` set
  bool signs;           // +scale or -scale by the sign stream, no plane needed
  Layout layout;
  Dtype dtype;
  void* out;  // [layout.n] of dtype, written in full
};

struct GenerateSignsParams {
  Draw draw;
  int32_t n;
  uint8_t* plane;  // [ceil(n / 8)], written in full; bits past n are 0
};

namespace cpu {
void generate_weight(const GenerateWeightParams& p);
void generate_signs(const GenerateSignsParams& p);
}  // namespace cpu

namespace cuda {
int generate_weight(const GenerateWeightParams& p, void* stream);
int generate_signs(const GenerateSignsParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
