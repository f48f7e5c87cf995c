// strike_near_cpu.cpp: a sample of the scores brackets the threshold, one pass over them lists what is in the bracket.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "../../base/key.cuh"
#include "../../base/parallel.h"
#include "../strike_out/key_ranges.h"
#include "strike_near.h"

namespace hn {
namespace cpu {
namespace {

constexpr int32_t kRun = 1024;              // scores worked on at a time: a multiple of 8, in L1
constexpr int64_t kGrain = 32;              // runs that are worth a thread
constexpr int64_t kSamples = 1 << 15;       // of scores that are many more
constexpr uint32_t kBins = 4096;            // that a bracket is cut into
constexpr double kDeviations = 3.0;         // of a sample's rank, to each side
constexpr uint32_t kLargest = 0x7f7fffffu;  // key of the largest finite score

uint32_t key_at(float score) { return key_of<Order::kMagnitude>(score); }

// The largest key of a run, NaN as its bits; how many are lower than `low`.
HN_INLINE void look_body(const float* scores, int32_t n, int32_t low, int32_t* largest, int32_t* below) {
  int32_t most = 0, lower = 0;
  for (int32_t i = 0; i < n; ++i) {
    int32_t key;
    std::memcpy(&key, scores + i, sizeof key);
    key &= 0x7fffffff;
    most = key > most ? key : most;
    lower += key < low;
  }
  *largest = most;
  *below = lower;
}

HN_DISPATCH(look, look_body)

struct Workspace {                // kept from call to call
  std::vector<uint8_t> flags;     // [runs][kRun / 8]
  std::vector<uint64_t> listed;   // key << 32 | slot: of a run, and in it
  std::vector<uint32_t> samples;  // keys
};

Workspace& workspace() {
  static thread_local Workspace w;
  return w;
}

uint32_t key_in(uint64_t candidate) { return uint32_t(candidate >> 32); }
uint32_t slot_in(uint64_t candidate) { return uint32_t(candidate); }

class StrikeNear {
 public:
  explicit StrikeNear(const StrikeNearParams& p) : p_(p), flags_(workspace().flags), listed_(workspace().listed) {
    for (int32_t i = 0; i < p.num_segments; ++i) {
      firsts_.push_back(n_);
      n_ += p.segments[i].n;
      for (int64_t at = 0; at < p.segments[i].n; at += kRun) runs_.push_back({i, at});
    }
  }

  StrikeNearResult run() {
    StrikeNearResult result{std::nanf(""), 0, {}};
    KeyRange bracket = sampled();
    for (;;) {
      pass(bracket);
      if (!finite_) return result;
      if (below_ >= p_.count && bracket.low == 1) {  // all that is below is 0
        finish(0, {1, 0}, &result);
        return result;
      }
      if (below_ >= p_.count) {
        bracket = {1, bracket.low - 1};
      } else if (below_ + int64_t(listed_.size()) < p_.count) {
        bracket = {bracket.high + 1, kLargest};
      } else {
        const uint32_t threshold = ranked(bracket);
        const KeyRange near = around(threshold);
        if (near.low >= bracket.low && near.high <= bracket.high) {
          finish(threshold, near, &result);
          return result;
        }
        bracket = {std::min(near.low, bracket.low), std::max(near.high, bracket.high)};
      }
    }
  }

 private:
  struct Run {
    int32_t segment;
    int64_t first;
  };

  // Keys between which the threshold probably is, if it is not 0: zeros may be many, and are never listed.
  KeyRange sampled() const {
    const int64_t stride = n_ / kSamples;
    if (stride < 4) return {1, kLargest};
    std::vector<uint32_t>& keys = workspace().samples;
    keys.clear();
    int32_t segment = 0;
    for (int64_t i = 0; i < kSamples; ++i) {
      const int64_t jitter = int64_t(uint64_t(uint32_t(i) * 0x9e3779b9u) * uint64_t(stride) >> 32);
      const int64_t place = i * stride + jitter;  // one of each stretch
      while (place >= firsts_[size_t(segment)] + p_.segments[segment].n) ++segment;
      keys.push_back(key_at(p_.segments[segment].scores[place - firsts_[size_t(segment)]]));
    }
    const double share = double(p_.count) / double(n_), rank = share * kSamples;
    const double width = kDeviations * std::sqrt(double(kSamples) * share * (1.0 - share)) + 8.0;
    uint32_t low = 1, high = kLargest;
    auto first = keys.begin();
    if (rank >= width) {
      first += int64_t(rank - width);
      std::nth_element(keys.begin(), first, keys.end());
      low = std::min(std::max(*first, 1u), kLargest);
    }
    if (rank + width < double(kSamples)) {
      const auto last = keys.begin() + int64_t(rank + width);
      std::nth_element(first, last, keys.end());
      high = std::max(std::min(*last, kLargest), low);
    }
    return {low, high};
  }

  // Flags of what is above the bracket; counts below it; lists what is inside.
  void pass(KeyRange bracket) {
    listed_.clear();
    below_ = 0;
    finite_ = true;
    flags_.resize(runs_.size() * (kRun / 8));
    std::mutex merging;
    parallel_for(0, int64_t(runs_.size()), kGrain, [&](int64_t begin, int64_t end) {
      std::vector<uint64_t> mine;
      int64_t below = 0;
      bool finite = true;
      uint8_t in[kRun / 8];
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs_[size_t(r)];
        const NearSegment& s = p_.segments[run.segment];
        const int32_t n = int32_t(std::min<int64_t>(kRun, s.n - run.first));
        const float* const scores = s.scores + run.first;
        uint8_t* const above = flags_.data() + r * (kRun / 8);
        int32_t largest = 0, lower = 0;
        look(scores, n, int32_t(bracket.low), &largest, &lower);
        finite = finite && uint32_t(largest) <= kLargest;
        below += lower;
        inside<Order::kMagnitude>(scores, n, bracket, 0, in);
        inside<Order::kMagnitude>(scores, n, {bracket.high + 1, kLargest}, 0, above);
        std::fill(in + (n + 7) / 8, in + kRun / 8, uint8_t(0));
        for (int32_t b = 0; 8 * b < n; b += 8) {
          uint64_t bits;
          std::memcpy(&bits, in + b, sizeof bits);
          for (; bits != 0; bits &= bits - 1) {
            const int32_t e = 8 * b + __builtin_ctzll(bits);
            mine.push_back(uint64_t(key_at(scores[e])) << 32 | uint64_t(r * kRun + e));
          }
        }
      }
      const std::lock_guard<std::mutex> lock(merging);
      listed_.insert(listed_.end(), mine.begin(), mine.end());
      below_ += below;
      finite_ = finite_ && finite;
    });
  }

  // The key of the threshold, which is listed.
  uint32_t ranked(KeyRange bracket) const {
    int shift = 0;
    while ((bracket.high - bracket.low) >> shift >= kBins) ++shift;
    uint32_t bins[kBins] = {};
    for (const uint64_t c : listed_) ++bins[(key_in(c) - bracket.low) >> shift];
    int64_t rank = p_.count - below_ - 1;
    uint32_t bin = 0;
    while (rank >= int64_t(bins[bin])) rank -= bins[bin++];
    std::vector<uint32_t> keys;
    for (const uint64_t c : listed_) {
      if ((key_in(c) - bracket.low) >> shift == bin) keys.push_back(key_in(c));
    }
    std::nth_element(keys.begin(), keys.begin() + rank, keys.end());
    return keys[size_t(rank)];
  }

  KeyRange around(uint32_t threshold) const {
    const double value = double(score_of_key(Order::kMagnitude, threshold));
    return {std::max(key_at(float(value * (1.0 - p_.margin))), 1u),
            std::min(key_at(float(value * (1.0 + p_.margin))), kLargest)};
  }

  void finish(uint32_t threshold, KeyRange near, StrikeNearResult* result) {
    result->threshold = score_of_key(Order::kMagnitude, threshold);
    result->below = below_;
    for (const uint64_t c : listed_) {
      const uint32_t key = key_in(c), slot = slot_in(c);
      result->below += key < near.low;
      if (key >= near.low && key <= near.high) {
        const Run& run = runs_[slot / kRun];
        result->places.push_back(firsts_[size_t(run.segment)] + run.first + slot % kRun);
      }
      flags_[slot / 8] |= uint8_t(uint32_t(key > threshold) << slot % 8);
    }
    std::sort(result->places.begin(), result->places.end());
    for (size_t r = 0; r < runs_.size(); ++r) {
      const NearSegment& s = p_.segments[runs_[r].segment];
      const int64_t n = std::min<int64_t>(kRun, s.n - runs_[r].first);
      std::copy_n(flags_.begin() + int64_t(r) * (kRun / 8), (n + 7) / 8, s.flags + runs_[r].first / 8);
    }
  }

  const StrikeNearParams& p_;
  int64_t n_ = 0;
  std::vector<int64_t> firsts_;  // of each segment, among all entries
  std::vector<Run> runs_;
  std::vector<uint8_t>& flags_;
  std::vector<uint64_t>& listed_;
  int64_t below_ = 0;
  bool finite_ = true;
};

}  // namespace

StrikeNearResult strike_near(const StrikeNearParams& p) { return StrikeNear(p).run(); }

}  // namespace cpu
}  // namespace hn
