// segments.h: many layers in one parallel loop: blocks of all layers side by side, and which layer a block is of.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"

namespace hn {
namespace cpu {

// The blocks of layers 0, 1, ... laid end to end. blocks_of(layer) -> how many it has; none is legal.
class SegmentBlocks {
 public:
  template <class F>
  SegmentBlocks(int32_t segments, const F& blocks_of) : begins_(size_t(segments) + 1, 0) {
    for (int32_t s = 0; s < segments; ++s) begins_[size_t(s) + 1] = begins_[size_t(s)] + int64_t(blocks_of(s));
  }

  int64_t total() const { return begins_.back(); }

  // Calls f(layer, begin, end) for each layer's share of the blocks [begin, end), numbered within the layer.
  template <class F>
  void visit(int64_t begin, int64_t end, const F& f) const {
    size_t s = size_t(std::upper_bound(begins_.begin(), begins_.end(), begin) - begins_.begin()) - 1;
    for (; begin < end; ++s) {
      const int64_t stop = std::min(end, begins_[s + 1]);
      if (begin < stop) f(int32_t(s), begin - begins_[s], stop - begins_[s]);
      begin = stop;
    }
  }

 private:
  std::vector<int64_t> begins_;
};

}  // namespace cpu
}  // namespace hn
