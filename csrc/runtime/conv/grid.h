// grid.h: along one axis of a map: which sources a block of neighbouring outputs needs, and where a tap finds its own.
#pragma once
#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

namespace hiddennet::runtime {

// Sources are kept by their phase (the remainder by the stride), so that neighbouring outputs read neighbouring slots.
struct GridAxis {
  int32_t block;                 // outputs
  std::vector<int32_t> source;   // of a slot: where it lies after the place of the block's first output (its tap 0)
  std::vector<int32_t> place;    // of a tap: the slot of the block's first output

  GridAxis(int32_t outputs, int64_t taps, int64_t stride, int64_t dilation) : block(outputs) {
    std::set<std::pair<int64_t, int64_t>> needed;  // phase, index
    for (int64_t k = 0; k < taps; ++k) {
      for (int64_t o = 0; o < outputs; ++o) needed.insert({k * dilation % stride, k * dilation / stride + o});
    }
    for (const auto& n : needed) source.push_back(int32_t(n.second * stride + n.first));
    for (int64_t k = 0; k < taps; ++k) {
      const auto at = needed.find({k * dilation % stride, k * dilation / stride});
      place.push_back(int32_t(std::distance(needed.begin(), at)));
    }
  }

  int32_t slots() const { return int32_t(source.size()); }
};

}  // namespace hiddennet::runtime
