// strike_out_cpu.cpp: flags struck out on a CPU: two counts of 16 bits find a group's threshold, a third pass applies it.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <vector>

#include "../../base/parallel.h"
#include "key_ranges.h"
#include "strike_out.h"

namespace hn {
namespace cpu {
namespace {

constexpr int32_t kRun = 1024;  // scores worked on at a time: a multiple of 8, in L1
constexpr int64_t kGrain = 32;  // runs below which a group is not worth a second thread
constexpr int kCoarse = 256;    // bins are first skipped by so many

// A piece of a segment in OIHW order. Starts at a multiple of 8, so that no two share a byte of flags.
struct Run {
  int32_t segment, first, n;
};

// The run's scores in OIHW order: where they lie, or gathered into buffer[kRun].
const float* in_order(const StrikeSegment& s, const Run& run, float* buffer) {
  const Layout& l = s.layout;
  if (!l.channels_last || l.taps == 1 || l.channels == 1) return s.scores + run.first;
  const int32_t filter = run.first / l.per_filter, inside = run.first - filter * l.per_filter;
  const float* base = s.scores + int64_t(filter) * l.per_filter;
  int32_t channel = inside / l.taps, tap = inside - channel * l.taps;
  for (int32_t e = 0; e < run.n; ++e) {
    buffer[e] = base[tap * l.channels + channel];
    if (++tap < l.taps) continue;
    tap = 0;
    if (++channel < l.channels) continue;
    channel = 0;
    base += l.per_filter;
  }
  return buffer;
}

// Bits of the byte at `first` that are entries below `end`.
uint32_t bits_below(int32_t first, int32_t end) {
  const int32_t n = std::min(std::max(end - first, 0), 8);
  return 0xffu >> (8 - n);
}

struct Found {
  uint32_t bin;
  uint64_t before, count;  // entries in lower bins; in this one
};

// The bin that holds the entry of this rank, from 0; there is one.
Found find(const std::vector<uint64_t>& bins, uint64_t rank) {
  uint64_t before = 0;
  size_t b = 0;
  for (;; b += kCoarse) {
    uint64_t sum = 0;
    for (int i = 0; i < kCoarse; ++i) sum += bins[b + size_t(i)];
    if (before + sum > rank) break;
    before += sum;
  }
  while (before + bins[b] <= rank) before += bins[b++];
  return {uint32_t(b), before, bins[b]};
}

template <Order kOrder>
class Strike {
 public:
  explicit Strike(const StrikeOutParams& p) : p_(p), flip_(p.invert ? 0xffffffffu : 0u), bins_(kHalfBins) {}

  void run() {
    for (int32_t g = 0; g < p_.num_groups; ++g) p_.thresholds[g] = strike(p_.groups[g]);
  }

 private:
  float strike(const StrikeGroup& group) {
    if (group.count == 0) return no_threshold(p_.invert);
    plan(group);
    count([&](const float* scores, const uint8_t* flags, int32_t n, uint32_t* keys) {
      const int32_t listed = list_keys<kOrder>(scores, flags, n, flip_, keys);
      for (int32_t i = 0; i < listed; ++i) keys[i] >>= 16;
      return listed;
    });
    uint64_t active = 0;
    for (const uint64_t b : bins_) active += b;
    const uint64_t going = std::min(uint64_t(group.count), active);
    if (going == 0) return no_threshold(p_.invert);
    const Found high = find(bins_, going - 1);
    count([&](const float* scores, const uint8_t* flags, int32_t n, uint32_t* keys) {
      uint8_t in[kRun / 8];
      inside<kOrder>(scores, n, {high.bin << 16, high.bin << 16 | 0xffffu}, flip_, in);
      for (int32_t b = 0; 8 * b < n; ++b) in[b] &= flags[b];
      const int32_t listed = list_keys<kOrder>(scores, in, n, flip_, keys);
      for (int32_t i = 0; i < listed; ++i) keys[i] &= 0xffffu;
      return listed;
    });
    const Found low = find(bins_, going - 1 - high.before);
    const uint32_t threshold = high.bin << 16 | low.bin;
    const uint64_t ties = going - high.before - low.before;  // of them go
    apply(group, threshold, p_.exact && ties < low.count ? ties : ~uint64_t(0));
    return threshold_of(kOrder, p_.invert, threshold);
  }

  void plan(const StrikeGroup& group) {
    runs_.clear();
    for (int32_t s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const int32_t n = p_.segments[s].layout.n;
      for (int32_t first = 0; first < n; first += kRun) runs_.push_back({s, first, std::min(kRun, n - first)});
    }
  }

  // f(run, its scores in OIHW order) for all of them, in parallel when there is enough work.
  template <class F>
  void each_run(const F& f) {
    parallel_for(0, int64_t(runs_.size()), kGrain, [&](int64_t begin, int64_t end) {
      float buffer[kRun];
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs_[size_t(r)];
        f(run, in_order(p_.segments[run.segment], run, buffer));
      }
    });
  }

  // Counts in bins_ what list(scores, flags, n, bins) lists of all runs.
  template <class List>
  void count(const List& list) {
    std::fill(bins_.begin(), bins_.end(), 0);
    std::mutex merging;
    parallel_for(0, int64_t(runs_.size()), kGrain, [&](int64_t begin, int64_t end) {
      static thread_local std::vector<uint32_t> mine;  // kept from call to call
      mine.assign(kHalfBins, 0);
      float buffer[kRun];
      uint32_t bins[kRun + 8];
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs_[size_t(r)];
        const StrikeSegment& s = p_.segments[run.segment];
        const int32_t listed = list(in_order(s, run, buffer), s.flags + run.first / 8, run.n, bins);
        for (int32_t i = 0; i < listed; ++i) ++mine[bins[i]];
      }
      const std::lock_guard<std::mutex> lock(merging);
      for (size_t b = 0; b < kHalfBins; ++b) bins_[b] += mine[b];
    });
  }

  // Entries up to the threshold go, of the ties at it only the first `quota` of the group.
  void apply(const StrikeGroup& group, uint32_t threshold, uint64_t quota) {
    const std::vector<int32_t> cuts = tie_cuts(group, threshold, quota);
    const KeyRange from{threshold, 0xffffffffu};
    const KeyRange above = threshold == 0xffffffffu ? KeyRange{1, 0} : KeyRange{threshold + 1, 0xffffffffu};
    each_run([&](const Run& run, const float* scores) {
      const int32_t cut = cuts[size_t(run.segment - group.first_segment)], end = run.first + run.n;
      uint8_t kept[kRun / 8], tied[kRun / 8];
      inside<kOrder>(scores, run.n, above, flip_, kept);
      if (cut < end) inside<kOrder>(scores, run.n, from, flip_, tied);
      uint8_t* flags = p_.segments[run.segment].flags + run.first / 8;
      for (int32_t b = 0; 8 * b < run.n; ++b) {
        const int32_t first = run.first + 8 * b;
        uint32_t stays = kept[b] | (0xffu & ~bits_below(first, end));
        if (cut < end) stays |= tied[b] & ~bits_below(first, cut);
        flags[b] &= uint8_t(stays);
      }
    });
  }

  // For each segment, 1 + the OIHW index of the last tie that goes. The first `quota` ties of the group go.
  std::vector<int32_t> tie_cuts(const StrikeGroup& group, uint32_t threshold, uint64_t quota) {
    std::vector<int32_t> cuts(size_t(group.segments));
    for (int32_t s = 0; s < group.segments; ++s) cuts[size_t(s)] = p_.segments[group.first_segment + s].layout.n;
    if (quota == ~uint64_t(0)) return cuts;
    float buffer[kRun];
    uint8_t tied[kRun / 8];
    for (const Run& run : runs_) {
      int32_t& cut = cuts[size_t(run.segment - group.first_segment)];
      if (quota == 0) {
        if (run.first == 0) cut = 0;
        continue;
      }
      const StrikeSegment& s = p_.segments[run.segment];
      inside<kOrder>(in_order(s, run, buffer), run.n, {threshold, threshold}, flip_, tied);
      for (int32_t b = 0; quota != 0 && 8 * b < run.n; ++b) {
        for (uint32_t bits = tied[b] & s.flags[run.first / 8 + b]; quota != 0 && bits != 0; bits &= bits - 1) {
          if (--quota == 0) cut = run.first + 8 * b + __builtin_ctz(bits) + 1;
        }
      }
    }
    return cuts;
  }

  const StrikeOutParams& p_;
  uint32_t flip_;  // of a key, to its rank_key
  std::vector<uint64_t> bins_;
  std::vector<Run> runs_;
};

}  // namespace

void strike_out(const StrikeOutParams& p) {
  if (p.order == Order::kMagnitude) {
    Strike<Order::kMagnitude>(p).run();
  } else {
    Strike<Order::kValue>(p).run();
  }
}

void count_flags(const CountFlagsParams& p) {
  for (int32_t i = 0; i < p.num_planes; ++i) {
    const FlagPlane& plane = p.planes[i];
    int64_t ones = 0, b = 0;
    for (; b + 8 <= plane.bytes; b += 8) {
      uint64_t word;
      std::memcpy(&word, plane.bits + b, sizeof word);
      ones += __builtin_popcountll(word);
    }
    for (; b < plane.bytes; ++b) ones += __builtin_popcount(plane.bits[b]);
    p.counts[i] = ones;
  }
}

}  // namespace cpu
}  // namespace hn
