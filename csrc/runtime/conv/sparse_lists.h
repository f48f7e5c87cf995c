// sparse_lists.h: the kept weights of a convolution, by chunks of input channels and by outputs.
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "../conv_plan.h"
#include "sparse_args.h"

namespace hiddennet::runtime {

class SparseLists {
 public:
  // place: of a tap, in vectors; a channel has `slots` of them, each of `unit` offsets. channels: of a chunk.
  SparseLists(const ConvShape& s, const ConvWeights& w, const std::vector<int32_t>& place, int32_t slots, int32_t unit,
              int32_t channels)
      : outs_(s.out_channels), channels_(channels), ins_(s.in_channels / s.groups) {
    chunks_ = int32_t((ins_ + channels - 1) / channels);
    const bool is_signed = w.magnitude != nullptr;
    const int64_t taps = int64_t(place.size()), row = ins_ * taps;
    int64_t kept = 0;
    for (int64_t i = 0; i < outs_ * row; ++i) kept += w.values[i] != 0.0f;
    if (kept >= (int64_t(1) << 32)) throw std::length_error("a convolution of more than 2^32 kept weights");
    offsets_.resize(size_t(kept) + 2);  // a write that is not kept may land behind
    if (!is_signed) values_.resize(size_t(kept) + 2);
    heads_.resize(size_t(chunks_ * outs_));
    std::vector<uint16_t> below(size_t(channels * taps) + 1);
    size_t end = 0;
    for (int32_t chunk = 0; chunk < chunks_; ++chunk) {
      const int64_t first = int64_t(chunk) * channels, last = std::min<int64_t>(first + channels, ins_);
      for (int64_t o = 0; o < outs_; ++o) {
        const float* const weight = w.values + o * row;
        const size_t start = end;
        size_t less = 0;
        for (int64_t c = first; c < last; ++c) {
          for (int64_t t = 0; t < taps; ++t) {
            const float v = weight[c * taps + t];
            const auto offset = uint16_t(((c - first) * slots + place[size_t(t)]) * unit);
            offsets_[end] = offset;
            if (is_signed) {
              below[less] = offset;
              end += v > 0.0f;
              less += v < 0.0f;
            } else {
              values_[end] = v;
              end += v != 0.0f;
            }
          }
        }
        heads_[size_t(chunk * outs_ + o)] = {uint32_t(start), uint16_t(end - start), uint16_t(less)};
        std::copy(below.begin(), below.begin() + std::ptrdiff_t(less), offsets_.begin() + std::ptrdiff_t(end));
        end += less;
      }
    }
  }

  int32_t chunks() const { return chunks_; }
  int32_t first_channel(int32_t chunk) const { return chunk * channels_; }
  int32_t channels_of(int32_t chunk) const { return int32_t(std::min<int64_t>(channels_, ins_ - chunk * channels_)); }
  const ListHead* heads(int32_t chunk) const { return heads_.data() + chunk * outs_; }
  const uint16_t* offsets() const { return offsets_.data(); }
  const float* values() const { return values_.empty() ? nullptr : values_.data(); }
  size_t bytes() const {
    return heads_.size() * sizeof(ListHead) + offsets_.size() * sizeof(uint16_t) + values_.size() * sizeof(float);
  }

 private:
  int64_t outs_;
  int32_t channels_, chunks_;
  int64_t ins_;
  std::vector<ListHead> heads_;
  std::vector<uint16_t> offsets_;
  std::vector<float> values_;
};

// Channels of a chunk whose tile, of `slots` vectors a channel, stays in the first level of cache; 0: an entry, of 16
// bits, could not name all of one channel's.
int32_t chunk_channels(const ConvShape& shape, const SparseLoops& loops, int64_t slots);

std::string sparse_name(const char* lanes, const SparseLists& lists, const SparseLoops& loops);

}  // namespace hiddennet::runtime
