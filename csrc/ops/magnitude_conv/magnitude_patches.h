// magnitude_patches.h: an image with its frame of zeros, and the patches of it that a convolution's positions see.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "../../base/conv_shape.h"
#include "magnitude_sight.h"
#include "magnitude_tile.h"

namespace hn {
namespace cpu {

// Where things lie in a framed image [C][height][width]. Positions are the distinct ones.
class Frame {
 public:
  Frame(const ConvShape& s, Sight sight)
      : s_(s),
        sight_(std::move(sight)),
        height_(s.in_height + 2 * int64_t(s.padding_height)),
        width_(s.in_width + 2 * int64_t(s.padding_width)),
        positions_(int64_t(sight_.rows.count()) * sight_.columns.count()),
        taps_(int64_t(s.kernel_height) * s.kernel_width) {
    // Positions of a panel lie in runs of this length, if not 1.
    const bool dense = s.stride_width == 1 && sight_.columns.single() && positions_ % kPanel<double> == 0;
    run_ = !dense ? 1 : (s.out_width % 16 == 0 ? 16 : (s.out_width % 8 == 0 ? 8 : (s.out_width % 4 == 0 ? 4 : 1)));
  }

  int64_t plane() const { return height_ * width_; }
  int64_t elements() const { return plane() * s_.in_channels; }
  int64_t positions() const { return positions_; }
  int64_t panels() const { return (positions_ + kPanel<double> - 1) / kPanel<double>; }
  int64_t taps() const { return taps_; }
  int64_t rows() const { return taps_ * s_.in_channels; }  // of patches
  int32_t run() const { return run_; }

  bool single() const { return sight_.rows.single() && sight_.columns.single(); }

  // Of a position's first tap in a channel.
  int64_t of_position(int64_t p) const {
    const int64_t row = sight_.rows.starts[size_t(p / sight_.columns.count())];
    const int64_t column = sight_.columns.starts[size_t(p % sight_.columns.count())];
    return row * s_.stride_height * width_ + column * s_.stride_width;
  }

  // Positions [first, first + n) of an output's channel, at all places that see the same.
  void spread(const double* values, int64_t first, int64_t n, double* channel) const {
    if (single()) {
      std::copy_n(values, n, channel + first);
      return;
    }
    for (int64_t i = 0; i < n; ++i) {
      const int32_t* const row = &sight_.rows.starts[size_t((first + i) / sight_.columns.count())];
      const int32_t* const column = &sight_.columns.starts[size_t((first + i) % sight_.columns.count())];
      for (int32_t y = row[0]; y < row[1]; ++y) {
        std::fill(channel + int64_t(y) * s_.out_width + column[0], channel + int64_t(y) * s_.out_width + column[1],
                  values[i]);
      }
    }
  }

  // The reverse: a channel's sums over places that see the same, rounded.
  void collect(const double* channel, float* sums) const {
    for (int32_t r = 0; r < sight_.rows.count(); ++r) {
      for (int32_t c = 0; c < sight_.columns.count(); ++c) {
        double sum = 0.0;
        for (int32_t y = sight_.rows.starts[size_t(r)]; y < sight_.rows.starts[size_t(r) + 1]; ++y) {
          for (int32_t i = sight_.columns.starts[size_t(c)]; i < sight_.columns.starts[size_t(c) + 1]; ++i) {
            sum += channel[int64_t(y) * s_.out_width + i];
          }
        }
        *sums++ = float(sum);
      }
    }
  }

  // Of a tap of a patch, from its first.
  int64_t of_row(int64_t k) const {
    const int64_t tap = k % taps_;
    return k / taps_ * plane() + tap / s_.kernel_width * s_.dilation_height * width_ +
           tap % s_.kernel_width * s_.dilation_width;
  }

  // Channels [first, first + count) framed into `to`.
  template <class T>
  void put(const double* x, int64_t first, int64_t count, T* to) const {
    std::fill(to, to + count * plane(), T(0));
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t y = 0; y < s_.in_height; ++y) {
        const double* const from = x + ((first + c) * s_.in_height + y) * s_.in_width;
        T* const row = to + c * plane() + (y + s_.padding_height) * width_ + s_.padding_width;
        for (int64_t i = 0; i < s_.in_width; ++i) row[i] = T(from[i]);
      }
    }
  }

  // The inside of a framed channel.
  void take(const double* framed, double* to) const {
    for (int64_t y = 0; y < s_.in_height; ++y) {
      std::memcpy(to + y * s_.in_width, framed + (y + s_.padding_height) * width_ + s_.padding_width,
                  size_t(s_.in_width) * sizeof(double));
    }
  }

 private:
  const ConvShape s_;
  const Sight sight_;
  int64_t height_, width_, positions_, taps_;
  int32_t run_;
};

// The positions of a panel, in runs of neighbours.
class PanelPositions {
 public:
  PanelPositions(const Frame& f, int64_t panel) : run_(f.run()) {
    const int64_t first = panel * kPanel<double>;
    count_ = int32_t(std::min<int64_t>(kPanel<double>, f.positions() - first));
    for (int32_t i = 0; i < count_; ++i) at_[i] = f.of_position(first + i);
  }

  int32_t count() const { return count_; }

  // to: [kPanel] values of the framed image from `from` on, zeros where there is no position.
  void read(const double* from, double* to) const {
    switch (run_) {
      case 16: return read_runs<16>(from, to);
      case 8: return read_runs<8>(from, to);
      case 4: return read_runs<4>(from, to);
      default: break;
    }
    for (int32_t i = 0; i < count_; ++i) to[i] = from[at_[i]];
    for (int32_t i = count_; i < kPanel<double>; ++i) to[i] = 0.0;
  }

  // Adds [kPanel] values where read() would find them.
  void add(const double* values, double* to) const {
    switch (run_) {
      case 16: return add_runs<16>(values, to);
      case 8: return add_runs<8>(values, to);
      case 4: return add_runs<4>(values, to);
      default: break;
    }
    for (int32_t i = 0; i < count_; ++i) to[at_[i]] += values[i];
  }

 private:
  template <int kRun>
  void read_runs(const double* from, double* to) const {
    for (int i = 0; i < kPanel<double>; i += kRun) std::memcpy(to + i, from + at_[i], kRun * sizeof(double));
  }

  template <int kRun>
  void add_runs(const double* values, double* to) const {
    for (int i = 0; i < kPanel<double>; i += kRun) {
      double sums[kRun];
      std::memcpy(sums, to + at_[i], sizeof sums);
      for (int j = 0; j < kRun; ++j) sums[j] += values[i + j];
      std::memcpy(to + at_[i], sums, sizeof sums);
    }
  }

  int32_t run_, count_;
  int64_t at_[kPanel<double>];
};

}  // namespace cpu
}  // namespace hn
