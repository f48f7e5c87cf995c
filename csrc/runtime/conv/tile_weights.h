// tile_weights.h: a convolution's weights as B tiles: two bits a weight where an output channel has one magnitude, which
// its sums are multiplied by afterwards; else bfloat16.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../../base/dtype.h"
#include "kept_bits.h"
#include "tile_kernels.h"

#if defined(HN_AMX)

namespace hiddennet::runtime {

// The sums' k: segments of neighbouring inputs in NHWC, each padded to whole tiles: a tap's channels, or, where these are
// few, those of a row of taps.
struct TileDepth {
  int32_t segments, length, tiles;  // elements of a segment, tiles of a segment
  bool rows;                        // segments are rows of taps

  explicit TileDepth(const ConvShape& s) {
    rows = s.in_channels < 32 && s.dilation_w == 1;
    segments = int32_t(rows ? s.kernel_h : s.kernel_h * s.kernel_w);
    length = int32_t(rows ? s.kernel_w * s.in_channels : s.in_channels);
    tiles = (length + 31) / 32;
  }
  int32_t all() const { return segments * tiles; }
};

// [strips][tiles along k][2 column tiles].
class TileWeights {
 public:
  TileWeights(const ConvShape& s, const ConvWeights& w, const TileDepth& depth)
      : depth_(depth.all()), is_signed_(w.magnitude != nullptr) {
    const int64_t strips = (s.out_channels + kStrip - 1) / kStrip, tiles = strips * depth_ * 2;
    if (is_signed_) {
      bits_.resize(size_t(tiles));
    } else {
      values_.reset(static_cast<uint16_t*>(std::aligned_alloc(64, size_t(tiles) * kTile * 2)));
      if (values_ == nullptr) throw std::bad_alloc();
      std::fill(values_.get(), values_.get() + tiles * kTile, uint16_t(0));
    }
    bytes_ = size_t(tiles) * (is_signed_ ? sizeof(TileBits) : size_t(kTile) * 2);
    // Of a filter's weights, in their order: the pair of k, counted from the strip's first tile of the column, and which
    // of the two it is.
    const int64_t taps = s.kernel_h * s.kernel_w, row = s.in_channels * taps;
    std::vector<uint32_t> pairs(size_t(row), 0);
    for (int64_t i = 0; i < row; ++i) {
      const int64_t c = i / taps, t = i % taps, segment = depth.rows ? t / s.kernel_w : t;
      const int64_t place = depth.rows ? t % s.kernel_w * s.in_channels + c : c;
      pairs[size_t(i)] = uint32_t(((segment * depth.tiles + place / 32) * 32 + place % 32 / 2) * 2 + place % 2);
    }
    KeptBits kept(row);
    for (int64_t o = 0; o < s.out_channels; ++o) {
      const size_t tile = size_t(o / kStrip * depth_ * 2 + o / 16 % 2);
      kept.read(w.values + o * row, row);
      put(w.values + o * row, kept, pairs, tile, uint32_t(o % 16));
    }
  }

  bool is_signed() const { return is_signed_; }
  size_t bytes() const { return bytes_; }
  const TileBits* bits(int64_t strip) const { return bits_.data() + strip * depth_ * 2; }
  const uint16_t* values(int64_t strip) const { return values_.get() + strip * depth_ * 2 * kTile; }

 private:
  void put(const float* filter, const KeptBits& kept, const std::vector<uint32_t>& pairs, size_t tile,
           uint32_t column) {
    kept.each([&](size_t i, bool negative) {
      const uint32_t pair = pairs[i] / 2, at = column * 2 + pairs[i] % 2;  // pair: 32 for two tiles
      if (is_signed_) {
        TileBits& bits = bits_[tile + pair / 32 * 2];
        bits.kept[pair % 32] |= 1u << at;
        bits.minus[pair % 32] |= uint32_t(negative) << at;
      } else {
        values_[(tile + pair / 32 * 2) * kTile + pair % 32 * 32 + at] = hn::bfloat16_bits(filter[i]);
      }
    });
  }

  struct Free {
    void operator()(uint16_t* p) const { std::free(p); }
  };
  int64_t depth_;
  bool is_signed_;
  size_t bytes_ = 0;
  std::vector<TileBits> bits_;
  std::unique_ptr<uint16_t[], Free> values_;
};

}  // namespace hiddennet::runtime

#endif
