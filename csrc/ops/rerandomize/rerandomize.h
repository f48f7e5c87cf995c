// rerandomize.h: replace unrevealed weights by a fresh draw with a given probability (IteRand, arXiv 2106.09269).
//
// For every layer of a network in one call: element i that `kept_by_selection` does not reveal, and that word(kRedraw
// stream, Draw{seed, layer, redraw}, i) < limit picks, becomes weight_at of Draw{seed, layer, redraw}. With `blend` the
// pick is of all unrevealed elements, and w becomes decay * w + mix * new: three roundings, no fma. Everything else
// keeps its bits. A constant's draw is the constant itself: such layers are left alone, unless blended.
#pragma once
#include <cstdint>

#include "../../base/layout.cuh"
#include "../../base/rule.cuh"
#include "../../base/source.cuh"

namespace hn {

struct RedrawSegment {
  const float* scores;  // [layout.n]
  float* weights;       // [layout.n] in the scores' layout, or null
  uint8_t* plane;       // else [ceil(layout.n / 8)] signs in OIHW order, 1 = negative (kSigns); bits past n stay
  int16_t* redraws;     // [layout.n] in the scores' layout: gets `redraw` where replaced; or null
  Layout layout;
  Source kind;  // any but kStored
  float scale;
  uint32_t layer;
};

struct RerandomizeParams {
  const RedrawSegment* segments;  // [num_segments], host memory
  int32_t num_segments;
  const Selection* selection;  // [num_segments] on the device
  Order order;
  uint32_t key0, key1, redraw;
  uint64_t limit;  // replaced with probability limit / 2^32; 2^32: always
  bool blend;      // no planes, no redraws, limit 2^32
  float decay, mix;
};

inline bool left_alone(const RedrawSegment& s, const RerandomizeParams& p) {
  return s.layout.n == 0 || p.limit == 0 || (s.kind == Source::kConstant && !p.blend);
}

namespace cpu {
void rerandomize(const RerandomizeParams& p);
}

namespace cuda {
int rerandomize(const RerandomizeParams& p, void* stream);
}

}  // namespace hn
