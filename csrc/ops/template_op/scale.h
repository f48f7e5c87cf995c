// scale.h: out = a * x. The template op: kept built and tested, explains the split, is what you copy.
//
// This header is the contract: what is computed, the params struct, one declaration a backend. It sees neither torch
// nor CUDA, so the kernels' tests need neither.
#pragma once
#include <cstdint>

namespace hn {

struct ScaleParams {
  const float* x;  // [n]
  float* out;      // [n], written in full
  float a;
  int64_t n;
};

namespace cpu {
void scale(const ScaleParams& p);
}

namespace cuda {
int scale(const ScaleParams& p, void* stream);  // 0, a cudaError_t or kRefused: no CUDA in this header
}

}  // namespace hn
