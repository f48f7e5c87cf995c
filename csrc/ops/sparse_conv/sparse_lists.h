// sparse_lists.h: a weight as rows of outputs, and the lists of a grid.
#pragma once
#include <atomic>
#include <cmath>
#include <vector>

#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "sparse_args.h"
#include "sparse_conv.h"
#include "sparse_grid.h"

namespace hn {
namespace cpu {

// A thread's memory, kept from call to call up to kKept bytes of it: fresh pages would cost as much as the lists.
struct ListMemory {
  static constexpr int64_t kKept = int64_t(64) << 20;

  Aligned<float> rows, values;
  Aligned<uint16_t> offsets, below;
  Aligned<ListHead> heads;
  int64_t bytes = 0;

  // To be called once a call, at its end.
  void trim(int64_t weights) {
    bytes = std::max(bytes, weights * int64_t(2 * sizeof(float) + 2 * sizeof(uint16_t)));
    if (bytes > kKept) *this = ListMemory();
  }
};

inline ListMemory& list_memory() {
  static thread_local ListMemory memory;
  return memory;
}

// A weight's memory as [outs][taps][ins]: as it is, or a copy.
struct WeightRows {
  const float* values;
  int32_t outs, taps, ins;

  int64_t row() const { return int64_t(taps) * ins; }
  int64_t count() const { return outs * row(); }
};

// Of the forward: an output is a filter. Of the input gradient: an output is an input channel.
inline void filter_rows(const SparseWeight& w, const ConvShape& s, const SparseLoops& loops, WeightRows* to) {
  to->outs = s.out_channels;
  to->taps = s.kernel_height * s.kernel_width;
  to->ins = s.in_channels;
  to->values = w.values;
  if (w.channels_last || to->taps == 1 || to->ins == 1) return;
  float* const copy = list_memory().rows.at_least(to->count());
  to->values = copy;
  parallel_for(0, to->outs, 16, [&](int64_t begin, int64_t end) {
    std::vector<float*> taps(size_t(to->taps));
    for (int64_t o = begin; o < end; ++o) {
      for (int32_t t = 0; t < to->taps; ++t) taps[size_t(t)] = copy + o * to->row() + int64_t(t) * to->ins;
      loops.turn({w.values + o * to->row(), to->taps, to->ins, to->taps, taps.data()});
    }
  });
}

inline void channel_rows(const SparseWeight& w, const ConvShape& s, const SparseLoops& loops, WeightRows* to) {
  const int32_t taps = s.kernel_height * s.kernel_width, channels = s.in_channels;
  to->outs = channels;
  to->taps = taps;
  to->ins = s.out_channels;
  float* const copy = list_memory().rows.at_least(to->count());
  to->values = copy;
  const int32_t columns = channels * taps;
  parallel_for(0, (columns + 63) / 64, 1, [&](int64_t begin, int64_t end) {
    float* targets[64];
    for (int64_t b = begin; b < end; ++b) {
      const int32_t first = int32_t(b * 64), n = std::min(64, columns - first);
      for (int32_t k = 0; k < n; ++k) {
        const int32_t channel = w.channels_last ? (first + k) % channels : (first + k) / taps;
        const int32_t tap = w.channels_last ? (first + k) / channels : (first + k) % taps;
        targets[k] = copy + channel * to->row() + int64_t(tap) * to->ins;
      }
      loops.turn({w.values + first, columns, to->ins, n, targets});
    }
  });
}

struct WeightSight {
  double density;   // of a sample
  float magnitude;  // of all weights of the sample that are not zero; or 0
};

inline WeightSight look_at(const WeightRows& w) {
  const int64_t n = w.count(), sample = std::min<int64_t>(n, 2048), step = n / std::max<int64_t>(sample, 1);
  int64_t kept = 0;
  float magnitude = 0.0f;
  bool one = true;
  for (int64_t i = 0; i < sample; ++i) {
    const float m = std::fabs(w.values[i * step + (i * 7) % step]);
    if (m == 0.0f) continue;
    ++kept;
    if (magnitude == 0.0f) magnitude = m;
    one = one && m == magnitude;
  }
  return {double(kept) / double(std::max<int64_t>(sample, 1)), one && std::isfinite(magnitude) ? magnitude : 0.0f};
}

// The lists of a grid: chunk by chunk of channels, output by output.
class Lists {
 public:
  Lists(const WeightRows& w, const Grid& grid, int32_t width, int32_t pitch, int32_t channels)
      : w_(w), memory_(list_memory()), pitch_(pitch), channels_(channels), chunks_((w.ins + channels - 1) / channels) {
    for (size_t y = 0; y < grid.y.taps.size(); ++y) {
      for (size_t x = 0; x < grid.x.taps.size(); ++x) {
        tap_at_.push_back((int64_t(grid.y.taps[y]) * width + grid.x.taps[x]) * w.ins);
        tap_place_.push_back(grid.y.place[y] * int32_t(grid.x.source.size()) + grid.x.place[x]);
      }
    }
    heads_ = memory_.heads.at_least(int64_t(chunks_) * w.outs);
  }

  // kind: kSigned is tried only where the sample is of one magnitude.
  void build(const SparseLoops& loops, ListKind kind, float magnitude) {
    kind_ = kind;
    magnitude_ = kind == ListKind::kSigned ? magnitude : 1.0f;
    const int64_t blocks = (w_.outs + kBuilt - 1) / kBuilt, list = int64_t(tap_at_.size()) * channels_;
    const int64_t room = kBuilt * list + kSlack;
    room_ = room * blocks * chunks_;
    offsets_ = memory_.offsets.at_least(room_);
    below_ = memory_.below.at_least(kind == ListKind::kSigned ? room_ : 0);
    values_ = memory_.values.at_least(kind == ListKind::kValued ? room_ : 0);
    std::atomic<bool> as_told{true};
    parallel_for(0, blocks * chunks_, std::max<int64_t>(1, (1 << 16) / room), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int32_t chunk = int32_t(i / blocks), out = int32_t(i % blocks) * kBuilt;
        BuildArgs a = {};
        a.weight = w_.values + out * w_.row() + int64_t(chunk) * channels_;
        a.out_stride = w_.row();
        a.outs = std::min(kBuilt, w_.outs - out);
        a.channels = channels_of(chunk);
        a.taps = int32_t(tap_at_.size());
        a.tap_at = tap_at_.data();
        a.tap_place = tap_place_.data();
        a.positions = pitch_;
        a.kind = kind;
        a.magnitude = magnitude;
        a.start = i * room;
        a.heads = heads_ + int64_t(chunk) * w_.outs + out;
        a.offsets = offsets_;
        a.below = below_;
        a.values = values_;
        if (!loops.build(a)) as_told = false;
      }
    });
    if (kind == ListKind::kSigned && !as_told) build(loops, ListKind::kValued, 1.0f);
  }

  int32_t chunks() const { return chunks_; }
  int32_t channels_of(int32_t chunk) const { return std::min(channels_, w_.ins - chunk * channels_); }
  int32_t first_channel(int32_t chunk) const { return chunk * channels_; }
  const ListHead* heads(int32_t chunk) const { return heads_ + int64_t(chunk) * w_.outs; }
  const uint16_t* offsets() const { return offsets_; }
  const uint16_t* below() const { return below_; }
  const float* values() const { return values_; }
  bool is_signed() const { return kind_ == ListKind::kSigned; }
  float magnitude() const { return magnitude_; }
  const std::vector<int64_t>& taps_at() const { return tap_at_; }
  int64_t room() const { return room_; }  // entries from the first list's start to the last one's end

 private:
  static constexpr int32_t kBuilt = 16;  // outputs of a task
  static constexpr int32_t kSlack = 16;  // appended vectors may end there

  const WeightRows& w_;
  ListMemory& memory_;
  int32_t pitch_, channels_, chunks_;
  ListKind kind_ = ListKind::kValued;
  float magnitude_ = 1.0f;
  int64_t room_ = 0;
  std::vector<int64_t> tap_at_;
  std::vector<int32_t> tap_place_;
  ListHead* heads_ = nullptr;
  uint16_t *offsets_ = nullptr, *below_ = nullptr;
  float* values_ = nullptr;
};

}  // namespace cpu
}  // namespace hn
