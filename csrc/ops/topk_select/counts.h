// counts.h: what a step on a CPU counts of a bracket while it writes the scores: one counter a group, one list of keys.
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include "bracket.h"
#include "topk_select.h"

namespace hn {
namespace cpu {

struct GroupCount {
  std::atomic<int64_t> below;  // keys below the bracket
  std::atomic<int64_t> found;  // keys in it; those past the list's room are not listed
  int64_t padding[6];          // a cache line each
};

inline Bracket bracket_around(const Selection& hint) {
  const uint32_t t = hint.threshold, w = hint.width;
  return {t - std::min(t, w), t + std::min(w, ~t)};
}

// The places within `p.counts`.
class Counts {
 public:
  explicit Counts(const TopkSelectParams& p) : groups_(static_cast<GroupCount*>(p.counts)), begins_{0} {
    for (int32_t g = 0; g < p.num_groups; ++g) begins_.push_back(begins_.back() + candidate_capacity(p.groups[g].n));
  }

  size_t bytes() const { return (begins_.size() - 1) * sizeof(GroupCount) + size_t(begins_.back()) * sizeof(uint32_t); }
  GroupCount& group(int32_t g) const { return groups_[g]; }
  int64_t room(int32_t g) const { return begins_[size_t(g) + 1] - begins_[size_t(g)]; }
  uint32_t* list(int32_t g) const {
    return reinterpret_cast<uint32_t*>(groups_ + (begins_.size() - 1)) + begins_[size_t(g)];
  }

  // Adds `n` scores of a group, which several threads may do. keys: room for n + kScanRoom.
  void add(int32_t g, Order order, Bracket bracket, const float* scores, int64_t n, uint32_t* keys) const {
    const BracketCount c = order == Order::kMagnitude ? scan_bracket<Order::kMagnitude>(scores, n, bracket, n, keys)
                                                      : scan_bracket<Order::kValue>(scores, n, bracket, n, keys);
    group(g).below.fetch_add(c.below, std::memory_order_relaxed);
    if (c.candidates == 0) return;
    const int64_t at = group(g).found.fetch_add(c.candidates, std::memory_order_relaxed);
    if (at + c.candidates <= room(g)) std::copy(keys, keys + c.candidates, list(g) + at);
  }

 private:
  GroupCount* groups_;
  std::vector<int64_t> begins_;
};

}  // namespace cpu
}  // namespace hn
