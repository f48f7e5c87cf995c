// sparse_lists.h: the kept weights of a convolution, by chunks of input channels and by outputs.
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "../conv_plan.h"
#include "kept_bits.h"
#include "sparse_args.h"

namespace hiddennet::runtime {

class SparseLists {
 public:
  enum Edge : uint8_t { kInside, kTop, kBottom };  // of a tap, as ListHead has them

  // place: of a tap, in vectors; a channel has `slots` of them, each of `unit` offsets. channels: of a chunk. edges: of the
  // taps; empty: all inside.
  SparseLists(const ConvShape& s, const ConvWeights& w, const std::vector<int32_t>& place, int32_t slots, int32_t unit,
              int32_t channels, const std::vector<Edge>& edges = {})
      : outs_(s.out_channels),
        channels_(channels),
        ins_(s.in_channels / s.groups),
        is_signed_(w.magnitude != nullptr),
        has_edges_(is_signed_ && !edges.empty()) {
    chunks_ = int32_t((ins_ + channels - 1) / channels);
    const int64_t taps = int64_t(place.size()), row = ins_ * taps;
    heads_.resize(size_t(chunks_ * outs_));
    const size_t each = size_t(channels * taps);
    std::vector<uint16_t> offset((each + 63) / 64 * 64);
    for (size_t i = 0; i < each; ++i) {
      offset[i] = uint16_t((int64_t(i / size_t(taps)) * slots + place[i % size_t(taps)]) * unit);
    }
    KeptBits bits(channels * taps);
    std::vector<uint64_t> among[3];  // of each edge: the chunk's weights
    if (has_edges_) {
      for (auto& words : among) words.resize((each + 63) / 64);
      for (size_t i = 0; i < each; ++i) among[edges[i % size_t(taps)]][i / 64] |= uint64_t(1) << (i % 64);
    }
    const auto pick = [&](bool negative, Edge edge, uint16_t* to) {
      return bits.pick(negative, among[edge].empty() ? nullptr : among[edge].data(), offset.data(), to);
    };
    size_t end = 0;
    for (int32_t chunk = 0; chunk < chunks_; ++chunk) {
      const int64_t first = int64_t(chunk) * channels, count = std::min<int64_t>(channels, ins_ - first);
      for (int64_t o = 0; o < outs_; ++o) {
        if (end >= (size_t(1) << 32)) throw std::length_error("a convolution of more than 2^32 kept weights");
        if (offsets_.size() < end + each + 32) offsets_.resize(2 * offsets_.size() + each + 32);
        const float* const weight = w.values + o * row + first * taps;
        uint16_t* const to = offsets_.data() + end;
        bits.read(weight, count * taps);
        size_t above = 0, below = 0, top[2] = {}, bottom[2] = {};
        if (is_signed_) {
          for (const bool negative : {false, true}) {
            uint16_t* const start = to + above;
            uint16_t* end = start;
            if (!among[kTop].empty()) end += top[negative] = pick(negative, kTop, end);
            end += pick(negative, kInside, end);
            if (!among[kBottom].empty()) end += bottom[negative] = pick(negative, kBottom, end);
            (negative ? below : above) = size_t(end - start);
          }
        } else {
          bits.each([&](size_t i, bool) {
            to[above++] = offset[i];
            values_.push_back(weight[i]);
          });
        }
        heads_[size_t(chunk * outs_ + o)] = {uint32_t(end),      uint16_t(above),     uint16_t(below),
                                             uint16_t(top[0]),   uint16_t(bottom[0]), uint16_t(top[1]),
                                             uint16_t(bottom[1])};
        end += above + below;
      }
    }
    offsets_.resize(end);
    offsets_.shrink_to_fit();
    if (!is_signed_) values_.push_back(0.0f);  // null is signed
    values_.shrink_to_fit();
  }

  int32_t chunks() const { return chunks_; }
  int32_t first_channel(int32_t chunk) const { return chunk * channels_; }
  int32_t channels_of(int32_t chunk) const { return int32_t(std::min<int64_t>(channels_, ins_ - chunk * channels_)); }
  const ListHead* heads(int32_t chunk) const { return heads_.data() + chunk * outs_; }
  bool has_edges() const { return has_edges_; }
  const uint16_t* offsets() const { return offsets_.data(); }
  const float* values() const { return is_signed_ ? nullptr : values_.data(); }
  size_t bytes() const {
    return heads_.size() * sizeof(ListHead) + offsets_.size() * sizeof(uint16_t) + values_.size() * sizeof(float);
  }

 private:
  int64_t outs_;
  int32_t channels_, chunks_;
  int64_t ins_;
  std::vector<ListHead> heads_;
  std::vector<uint16_t> offsets_;
  std::vector<float> values_;  // beside the offsets
  bool is_signed_, has_edges_;
};

// Channels of a chunk whose tile, of `slots` vectors a channel, stays in the first level of cache; 0: an entry, of 16
// bits, could not name all of one channel's.
int32_t chunk_channels(const ConvShape& shape, const SparseLoops& loops, int64_t slots);

// Measured of one core: entries with their additions to a block's sums, and each output's sums of a chunk.
struct SparseCosts {
  double entries, sums;  // seconds

  SparseCosts(const ConvOutline& outline, int64_t sums_of_block, double blocks, int32_t channels) {
    constexpr double kAdditionsASecond = 4.5e9, kMore = 1.5, kSums = 2.5e-8;
    const ConvShape& s = outline.shape;
    const double ins = double(s.in_channels / s.groups), chunks = double(int64_t(ins) + channels - 1) / channels;
    const double vectors = double(sums_of_block), valued = outline.is_signed ? 1.0 : 1.1;
    entries = valued * blocks * double(outline.kept) * (vectors + kMore) / kAdditionsASecond;
    sums = blocks * double(s.out_channels) * double(int64_t(chunks)) * (0.2 + vectors / 20.0) * kSums;
  }
};

std::string sparse_name(const char* lanes, bool is_signed, const SparseLoops& loops);

}  // namespace hiddennet::runtime
