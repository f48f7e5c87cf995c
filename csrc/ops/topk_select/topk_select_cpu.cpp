// topk_select_cpu.cpp: exact thresholds on a CPU: no pass where a step counted, one bracketed pass when warm, three
// histogram passes when not.
#include <algorithm>
#include <atomic>
#include <vector>

#include "../../base/parallel.h"
#include "counts.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kChunk = 1 << 15;
constexpr int64_t kSerialBelow = 100000;  // elements of the whole call; less is not worth waking a thread
constexpr int kBins = 2048;
constexpr int kHistograms = 4;  // interleaved, so that equal keys in a row do not wait for each other

constexpr int32_t kTieBlock = 1024;

template <Order kOrder>
HN_INLINE void count_equal_body(const float* scores, int32_t n, uint32_t key, int32_t* count) {
  int32_t found = 0;
  for (int32_t e = 0; e < n; ++e) found += key_of<kOrder>(scores[e]) == key;
  *count = found;
}

HN_DISPATCH(count_magnitudes, count_equal_body<Order::kMagnitude>)
HN_DISPATCH(count_values, count_equal_body<Order::kValue>)

template <Order kOrder>
int32_t count_equal(const float* scores, int32_t n, uint32_t key) {
  int32_t found;
  kOrder == Order::kMagnitude ? count_magnitudes(scores, n, key, &found) : count_values(scores, n, key, &found);
  return found;
}

struct Chunk {
  int32_t segment;
  int64_t begin, n;     // within the segment
  int64_t slice;        // its first place in the candidate buffer
  BracketCount result;  // of the warm pass
};

struct GroupState {
  bool warm, counted, settled;
  bool overflow;
  Bracket bracket;
  int64_t rank;        // 0-based rank of the smallest kept key
  uint32_t prefix;     // cold: digits found so far
  int64_t below;       // keys known to be below the prefix
  uint32_t threshold;  // result
  int64_t quota;       // result: how many keys equal to the threshold are pruned
  uint32_t width;      // result
  int64_t candidates;  // warm: keys inside the bracket; -1 after a miss
  int32_t first_chunk, chunks;
};

template <Order kOrder>
class Selector {
 public:
  explicit Selector(const TopkSelectParams& p) : p_(p), counts_(p), groups_(size_t(p.num_groups)) {
    for (int32_t g = 0; g < p.num_groups; ++g) plan(g);
  }

  void run() {
    static thread_local std::vector<uint32_t> workspace;  // grows to the largest network seen: no allocation in a step
    if (workspace.size() < size_t(slices_)) workspace.resize(size_t(slices_));
    candidates_ = workspace.data();
    each_chunk([](const GroupState& g) { return g.warm && !g.counted; },
               [&](Chunk& c, const GroupState& g) {
                 c.result = scan_bracket<kOrder>(p_.segments[c.segment].scores + c.begin, c.n, g.bracket,
                                                 candidate_capacity(c.n), candidates_ + c.slice);
               });
    for (int32_t g = 0; g < p_.num_groups; ++g) {
      GroupState& group = groups_[size_t(g)];
      if (group.counted) {
        settle_counted(group, g);
      } else if (group.warm && !group.settled) {
        settle_warm(group);
      }
    }
    for (int digit = 0; digit < 3; ++digit) cold_pass(digit);
    for (int32_t g = 0; g < p_.num_groups; ++g) write(g);
  }

 private:
  void plan(int32_t index) {
    const SelectGroup& group = p_.groups[index];
    GroupState& g = groups_[size_t(index)];
    g = GroupState{};
    g.rank = group.n - group.k;
    g.settled = is_settled(group);
    g.candidates = -1;
    const Selection* hint = p_.hint == nullptr ? nullptr : p_.hint + group.first_segment;
    g.warm = !g.settled && hint != nullptr && hint->width != 0;
    g.counted = g.warm && p_.counts != nullptr;
    if (g.warm) g.bracket = bracket_around(*hint);
    g.first_chunk = int32_t(chunks_.size());
    if (g.settled) return;
    for (int32_t s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const int64_t n = p_.segments[s].layout.n;
      for (int64_t begin = 0; begin < n; begin += kChunk) {
        const int64_t size = std::min(kChunk, n - begin);
        chunks_.push_back({s, begin, size, slices_, {0, 0}});
        if (g.warm && !g.counted) slices_ += candidate_capacity(size) + kScanRoom;
        total_ += size;
      }
    }
    g.chunks = int32_t(chunks_.size()) - g.first_chunk;
  }

  // f(chunk, its group) for the chunks of unsettled groups that `want` accepts, in parallel when there is enough work.
  template <class Want, class F>
  void each_chunk(const Want& want, const F& f) {
    const int64_t count = int64_t(chunks_.size());
    parallel_for(0, count, total_ < kSerialBelow ? count : 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        Chunk& chunk = chunks_[size_t(c)];
        const GroupState& g = groups_[size_t(p_.segments[chunk.segment].group)];
        if (!g.settled && want(g)) f(chunk, g);
      }
    });
  }

  // The answer is the candidate of rank `rank - below`, when there is one.
  void settle_warm(GroupState& g) {
    int64_t below = 0, count = 0;
    uint32_t* packed = g.chunks == 0 ? nullptr : candidates_ + chunks_[size_t(g.first_chunk)].slice;
    for (int32_t c = g.first_chunk; c < g.first_chunk + g.chunks; ++c) {
      const Chunk& chunk = chunks_[size_t(c)];
      if (chunk.result.candidates < 0) {
        g.overflow = true;
        return;
      }
      const uint32_t* slice = candidates_ + chunk.slice;
      std::copy(slice, slice + chunk.result.candidates, packed + count);  // never past the slice: slices are in order
      below += chunk.result.below;
      count += chunk.result.candidates;
    }
    settle_among(g, packed, below, count);
  }

  void settle_counted(GroupState& g, int32_t index) {
    GroupCount& counted = counts_.group(index);
    const int64_t below = counted.below, found = counted.found;
    g.overflow = found > counts_.room(index);
    if (!g.overflow) settle_among(g, counts_.list(index), below, found);
    counted.below = counted.found = 0;
  }

  void settle_among(GroupState& g, uint32_t* packed, int64_t below, int64_t count) {
    const int64_t r = g.rank - below;
    if (r < 0 || r >= count) return;
    std::nth_element(packed, packed + r, packed + count);
    g.threshold = packed[r];
    g.quota = r;
    for (int64_t i = 0; i < r; ++i) g.quota -= packed[i] < g.threshold;
    g.candidates = count;
    g.settled = true;
  }

  // Digit 0, 1, 2 = the top 11, the next 11, the last 10 bits of the key.
  void cold_pass(int digit) {
    const int shift = digit == 0 ? 21 : (digit == 1 ? 10 : 0);
    const uint32_t digit_mask = digit == 2 ? 1023u : 2047u;
    const uint32_t prefix_mask = digit == 0 ? 0u : (digit == 1 ? ~0u << 21 : ~0u << 10);
    if (std::all_of(groups_.begin(), groups_.end(), [](const GroupState& g) { return g.settled; })) return;
    std::vector<std::atomic<int64_t>> bins(groups_.size() * kBins);  // a network may have more scores than 2^32
    each_chunk([](const GroupState&) { return true; },
               [&](Chunk& c, const GroupState& g) {
                 static thread_local std::vector<uint32_t> local;
                 local.assign(size_t(kHistograms) * kBins, 0);
                 const float* scores = p_.segments[c.segment].scores + c.begin;
                 for (int64_t i = 0; i < c.n; ++i) {
                   const uint32_t key = key_of<kOrder>(scores[i]);
                   if ((key & prefix_mask) == g.prefix)
                     ++local[size_t(i % kHistograms) * kBins + (key >> shift & digit_mask)];
                 }
                 std::atomic<int64_t>* to = bins.data() + size_t(p_.segments[c.segment].group) * kBins;
                 for (int b = 0; b < kBins; ++b) {
                   uint32_t sum = 0;
                   for (int h = 0; h < kHistograms; ++h) sum += local[size_t(h * kBins + b)];
                   if (sum != 0) to[b].fetch_add(sum, std::memory_order_relaxed);
                 }
               });
    for (size_t i = 0; i < groups_.size(); ++i) {
      GroupState& g = groups_[i];
      if (g.settled) continue;
      const std::atomic<int64_t>* of = bins.data() + i * kBins;
      int b = 0;
      while (g.below + of[b] <= g.rank) g.below += of[b++];
      g.prefix |= uint32_t(b) << shift;
      if (digit == 2) {
        g.threshold = g.prefix;
        g.quota = g.rank - g.below;
        g.settled = true;
      }
    }
  }

  void write(int32_t index) {
    const SelectGroup& group = p_.groups[index];
    const GroupState& g = groups_[size_t(index)];
    const bool all = group.k == group.n, none = group.k == 0 && !all;
    const bool cold = !all && !none && g.candidates < 0;
    int64_t quota = g.quota;
    for (int32_t s = group.first_segment; s < group.first_segment + group.segments; ++s) {
      const Selection hint = p_.hint == nullptr ? Selection{0, 0, 0, 0} : p_.hint[s];
      Selection& out = p_.out[s];
      out.cold = hint.cold + (cold ? 1 : 0);
      if (all || none) {
        out.threshold = all ? 0u : 0xffffffffu;
        out.cut = all || p_.keep_ties ? 0 : p_.segments[s].layout.n;
        out.width = hint.width != 0 ? hint.width : kFirstWidth;
        continue;
      }
      out.threshold = g.threshold;
      out.width = next_width(hint.width, cold && g.warm && !g.overflow, g.overflow, g.candidates, group.n);
      out.cut = quota == 0 || p_.keep_ties ? 0 : tie_cut(p_.segments[s], g.threshold, &quota);
    }
  }

  // 1 + the OIHW index of the segment's `quota`-th tie; the whole segment when it has fewer, and the rest is passed on.
  static int32_t tie_cut(const SelectSegment& segment, uint32_t threshold, int64_t* quota) {
    const Layout& layout = segment.layout;
    std::vector<int32_t> ties;  // their OIHW indices, few as a rule
    for (int32_t first = 0; first < layout.n; first += kTieBlock) {
      const int32_t n = std::min(kTieBlock, layout.n - first);
      const float* scores = segment.scores + first;
      if (count_equal<kOrder>(scores, n, threshold) == 0) continue;
      for (int32_t e = 0; e < n; ++e) {
        if (key_of<kOrder>(scores[e]) == threshold) ties.push_back(layout.logical(first + e));
      }
      if (!layout.channels_last && int64_t(ties.size()) >= *quota) break;
    }
    if (int64_t(ties.size()) < *quota) {
      *quota -= int64_t(ties.size());
      return layout.n;
    }
    std::nth_element(ties.begin(), ties.begin() + (*quota - 1), ties.end());
    const int32_t last = ties[size_t(*quota - 1)];
    *quota = 0;
    return last + 1;
  }

  const TopkSelectParams& p_;
  const Counts counts_;
  std::vector<GroupState> groups_;
  std::vector<Chunk> chunks_;
  int64_t slices_ = 0, total_ = 0;
  uint32_t* candidates_ = nullptr;
};

}  // namespace

size_t topk_counts_bytes(const TopkSelectParams& p) { return Counts(p).bytes(); }

void topk_select(const TopkSelectParams& p) {
  if (p.order == Order::kMagnitude) {
    Selector<Order::kMagnitude>(p).run();
  } else {
    Selector<Order::kValue>(p).run();
  }
}

}  // namespace cpu
}  // namespace hn
