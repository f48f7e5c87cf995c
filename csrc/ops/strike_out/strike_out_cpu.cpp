// strike_out_cpu.cpp: flags struck out on a CPU: two counts of 16 bits find a group's threshold, a third pass applies it.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>
#include <vector>

#include "../../base/parallel.h"
#include "key_ranges.h"
#include "strike_out.h"

namespace hn {
namespace cpu {
namespace {

constexpr int32_t kRun = 1024;  // scores worked on at a time: a multiple of 8, in L1
constexpr int64_t kGrain = 32;  // runs that are worth a thread
constexpr int kTogether = 32;   // groups that share the passes, and the waiting for the slowest thread after each
constexpr int kCoarse = 256;    // bins are first skipped by so many

// A piece of a segment in OIHW order. Starts at a multiple of 8, so that no two share a byte of flags.
struct Run {
  int32_t segment, first, n;
  int32_t group;  // of those that share the passes
};

struct GroupState {
  uint64_t going;      // how many go, without the ties that go along; 0: nothing
  uint64_t rank;       // of the last to go, among the keys with the high half found
  uint32_t threshold;  // its ranked key; after the first pass the high half
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
Found find(const uint32_t* bins, uint64_t rank) {
  uint64_t before = 0;
  uint32_t b = 0;
  for (;; b += kCoarse) {
    const uint64_t sum = std::accumulate(bins + b, bins + b + kCoarse, uint64_t(0));
    if (before + sum > rank) break;
    before += sum;
  }
  while (before + bins[b] <= rank) before += bins[b++];
  return {b, before, bins[b]};
}

template <Order kOrder>
class Strike {
 public:
  explicit Strike(const StrikeOutParams& p) : p_(p), flip_(p.invert ? 0xffffffffu : 0u), cuts_(size_t(p.num_segments)) {
    static thread_local std::vector<uint32_t> workspace;  // kept from call to call
    const size_t groups = size_t(std::min(p.num_groups, kTogether));
    if (workspace.size() < groups * kHalfBins) workspace.resize(groups * kHalfBins);
    bins_ = workspace.data();
  }

  void run() {
    for (int32_t g = 0; g < p_.num_groups; g += kTogether) strike(g, std::min(kTogether, p_.num_groups - g));
  }

 private:
  // Groups [first, first + count) of the call.
  void strike(int32_t first, int32_t count) {
    plan(first, count);
    add_up([&](const float* scores, const uint8_t* flags, const Run& run, uint32_t* keys) {
      const int32_t listed = list_keys<kOrder>(scores, flags, run.n, flip_, keys);
      for (int32_t i = 0; i < listed; ++i) keys[i] >>= 16;
      return listed;
    });
    for (size_t g = 0; g < size_t(count); ++g) {
      settle_high(p_.groups[size_t(first) + g], &groups_[g], bins_ + g * kHalfBins);
    }
    add_up([&](const float* scores, const uint8_t* flags, const Run& run, uint32_t* keys) {
      uint8_t in[kRun / 8];
      const uint32_t high = groups_[size_t(run.group)].threshold;
      inside<kOrder>(scores, run.n, {high, high | 0xffffu}, flip_, in);
      for (int32_t b = 0; 8 * b < run.n; ++b) in[b] &= flags[b];
      const int32_t listed = list_keys<kOrder>(scores, in, run.n, flip_, keys);
      for (int32_t i = 0; i < listed; ++i) keys[i] &= 0xffffu;
      return listed;
    });
    for (size_t g = 0; g < size_t(count); ++g) {
      settle_low(p_.groups[size_t(first) + g], &groups_[g], bins_ + g * kHalfBins, p_.thresholds + first + g);
    }
    apply();
  }

  void plan(int32_t first, int32_t count) {
    runs_.clear();
    groups_.assign(size_t(count), {0, 0, 0});
    for (int32_t g = 0; g < count; ++g) {
      const StrikeGroup& group = p_.groups[first + g];
      p_.thresholds[first + g] = no_threshold(p_.invert);
      if (group.count == 0) continue;
      groups_[size_t(g)].going = uint64_t(group.count);
      for (int32_t s = group.first_segment; s < group.first_segment + group.segments; ++s) {
        const int32_t n = p_.segments[s].layout.n;
        for (int32_t i = 0; i < n; i += kRun) runs_.push_back({s, i, std::min(kRun, n - i), g});
      }
    }
  }

  // Counts, in the bins of each group, what list(scores in OIHW order, flags, run, bins) lists of its runs.
  template <class List>
  void add_up(const List& list) {
    std::fill_n(bins_, groups_.size() * kHalfBins, 0u);
    std::mutex merging;
    parallel_for(0, int64_t(runs_.size()), kGrain, [&](int64_t begin, int64_t end) {
      static thread_local std::vector<uint32_t> mine;
      mine.assign(kHalfBins, 0);
      float buffer[kRun];
      uint32_t bins[kRun + 8];
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs_[size_t(r)];
        if (groups_[size_t(run.group)].going == 0) continue;
        const StrikeSegment& s = p_.segments[run.segment];
        const int32_t listed = list(in_order(s, run, buffer), s.flags + run.first / 8, run, bins);
        for (int32_t i = 0; i < listed; ++i) ++mine[bins[i]];
        if (r + 1 < end && runs_[size_t(r + 1)].group == run.group) continue;
        const std::lock_guard<std::mutex> lock(merging);
        uint32_t* sums = bins_ + size_t(run.group) * kHalfBins;
        for (size_t b = 0; b < kHalfBins; ++b) sums[b] += mine[b];
        std::fill(mine.begin(), mine.end(), 0);
      }
    });
  }

  void settle_high(const StrikeGroup& group, GroupState* g, const uint32_t* bins) {
    if (g->going == 0) return;
    g->going = std::min(g->going, std::accumulate(bins, bins + kHalfBins, uint64_t(0)));
    if (g->going == 0) return;
    const Found high = find(bins, g->going - 1);
    g->threshold = high.bin << 16;
    g->rank = g->going - 1 - high.before;
    for (int32_t s = 0; s < group.segments; ++s) {
      cuts_[size_t(group.first_segment + s)] = p_.segments[group.first_segment + s].layout.n;
    }
  }

  void settle_low(const StrikeGroup& group, GroupState* g, const uint32_t* bins, float* threshold) {
    if (g->going == 0) return;
    const Found low = find(bins, g->rank);
    g->threshold |= low.bin;
    const uint64_t ties = g->rank - low.before + 1;  // of them go
    if (p_.exact && ties < low.count) place_cut(group, g->threshold, ties);
    *threshold = threshold_of(kOrder, p_.invert, g->threshold);
  }

  // Only the first `quota` of a group's ties go: ends them at the index after the last that does.
  void place_cut(const StrikeGroup& group, uint32_t threshold, uint64_t quota) {
    float buffer[kRun];
    uint8_t tied[kRun / 8];
    for (int32_t i = group.first_segment; i < group.first_segment + group.segments; ++i) {
      const StrikeSegment& s = p_.segments[i];
      if (quota == 0) cuts_[size_t(i)] = 0;
      for (int32_t first = 0; quota != 0 && first < s.layout.n; first += kRun) {
        const Run run{i, first, std::min(kRun, s.layout.n - first), 0};
        inside<kOrder>(in_order(s, run, buffer), run.n, {threshold, threshold}, flip_, tied);
        for (int32_t b = 0; quota != 0 && 8 * b < run.n; ++b) {
          for (uint32_t bits = tied[b] & s.flags[first / 8 + b]; quota != 0 && bits != 0; bits &= bits - 1) {
            if (--quota == 0) cuts_[size_t(i)] = first + 8 * b + __builtin_ctz(bits) + 1;
          }
        }
      }
    }
  }

  // Entries up to the threshold go, ties at it up to the cut.
  void apply() {
    parallel_for(0, int64_t(runs_.size()), kGrain, [&](int64_t begin, int64_t end) {
      float buffer[kRun];
      uint8_t kept[kRun / 8], tied[kRun / 8];
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs_[size_t(r)];
        const GroupState& g = groups_[size_t(run.group)];
        if (g.going == 0) continue;
        const StrikeSegment& s = p_.segments[run.segment];
        const float* scores = in_order(s, run, buffer);
        const int32_t cut = cuts_[size_t(run.segment)], stop = run.first + run.n;
        inside<kOrder>(scores, run.n, above(g.threshold), flip_, kept);
        if (cut < stop) inside<kOrder>(scores, run.n, {g.threshold, 0xffffffffu}, flip_, tied);
        for (int32_t b = 0; 8 * b < run.n; ++b) {
          const int32_t first = run.first + 8 * b;
          uint32_t stays = kept[b] | (0xffu & ~bits_below(first, stop));
          if (cut < stop) stays |= tied[b] & ~bits_below(first, cut);
          s.flags[first / 8] &= uint8_t(stays);
        }
      }
    });
  }

  static KeyRange above(uint32_t key) { return key == 0xffffffffu ? KeyRange{1, 0} : KeyRange{key + 1, 0xffffffffu}; }

  const StrikeOutParams& p_;
  uint32_t flip_;   // of a key, to its rank_key
  uint32_t* bins_;  // [kTogether][kHalfBins]
  std::vector<GroupState> groups_;
  std::vector<Run> runs_;
  std::vector<int32_t> cuts_;  // of each segment: ties at lower OIHW indices go
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
