// redrawn_weight.h: the weights that some redraws left behind: element i of draw number redraws[i].
//
// What a checkpoint of redrawn weights keeps is two bytes a weight; this makes the four again. Bit for bit what
// `rerandomize` wrote, which noted its number in `redraws`; 0 is the initial draw.
#pragma once
#include <cstdint>

#include "../../base/layout.cuh"
#include "../../base/source.cuh"

namespace hn {

struct RedrawnWeightParams {
  const int16_t* redraws;  // [layout.n] in `layout`; not negative
  Source kind;             // any but kStored; kSigns are drawn, without a plane
  float scale;
  Draw draw;  // seed and layer; `redraw` is replaced
  Layout layout;
  float* out;  // [layout.n] in `layout`, written in full
};

namespace cpu {
void redrawn_weight(const RedrawnWeightParams& p);
}

namespace cuda {
int redrawn_weight(const RedrawnWeightParams& p, void* stream);
}

}  // namespace hn
