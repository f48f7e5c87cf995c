// topk_select.h: find, for every layer of a network in one call, the threshold that keeps its k highest scores.
//
// Selection only: the result is one `Selection` row a segment (rule.cuh), from which masks and weights are made again
// whenever they are needed. Segments of one group share one ranking: a group per layer, or one group for the network.
// Exactly k of a group are kept; among equal scores the lower (segment, OIHW index) is pruned first, so every backend,
// rank and run agrees bit for bit. NaN ranks above every number. k = 0 and k = n are legal.
//
// Warm start: a hint row's threshold and width bracket the new threshold; one pass counts below the bracket and
// collects what is inside. When the answer is not inside, or too much is, the group falls back to the radix search in
// the same call. The threshold and the cut are the same either way; only `width` and `cold` tell.
//
// Who writes the scores may look into the bracket on the way (score_step): what it counts is kept in `counts`, of which
// the group is settled without a pass over the scores.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../../base/layout.cuh"
#include "../../base/rule.cuh"

namespace hn {

struct SelectSegment {
  const float* scores;  // [layout.n]
  Layout layout;
  int32_t group;  // segments of a group are consecutive; groups count up from 0
};

struct SelectGroup {
  int32_t first_segment, segments;
  int64_t n, k;  // elements of all its segments; how many are kept
};

struct TopkSelectParams {
  const SelectSegment* segments;  // [num_segments], host memory
  const SelectGroup* groups;      // [num_groups], host memory
  int32_t num_segments, num_groups;
  Order order;
  const Selection*
      hint;  // [num_segments] on the device, or null: cold. A row with width 0 is no hint. Rows of a group agree in all but the cut
  Selection* out;   // [num_segments] on the device, written in full; may be `hint`
  bool keep_ties;   // all scores equal to the threshold are kept: every cut is 0
  void* workspace;  // cuda: topk_select_workspace bytes on the device, contents ignored
  // topk_counts_bytes beside the scores, or null. Zero, or what a step counted of these scores as they are now, around
  // these hints, with these groups and k; the groups' counters are zero again afterwards.
  void* counts = nullptr;
};

// All or none of the group are kept: there is nothing to search for, and nothing to count.
inline bool is_settled(const SelectGroup& g) { return g.k == 0 || g.k == g.n; }

// Next half-width of the bracket: shrink when too many candidates came, grow after a miss. Part of the result, so it is
// one function for all backends. `candidates` < 0 means the bracket missed (or overflowed when `overflow`).
constexpr uint32_t kFirstWidth = 1u << 17;  // about 1 % of a float's value
HN_HD uint32_t next_width(uint32_t width, bool miss, bool overflow, int64_t candidates, int64_t n) {
  if (width == 0) return kFirstWidth;
  if (overflow) return width > 64 ? width / 4 : 16;
  if (miss) return width < (1u << 28) ? width * 4 : 1u << 30;
  if (candidates * 32 > n) return width > 32 ? width / 2 : 16;
  return width;
}

// How many candidates a chunk of `n` scores may hold before the bracket counts as overflowed.
constexpr HN_HD int64_t candidate_capacity(int64_t n) { return n / 8 + 64; }

namespace cpu {
size_t topk_counts_bytes(const TopkSelectParams& p);  // depends on sizes only
void topk_select(const TopkSelectParams& p);
}  // namespace cpu

namespace cuda {
size_t topk_counts_bytes(const TopkSelectParams& p);       // 0: more layers than are counted
size_t topk_select_workspace(const TopkSelectParams& p);   // bytes; depends on sizes only
int topk_select(const TopkSelectParams& p, void* stream);  // 0, a cudaError_t or kRefused: no CUDA in this header
}  // namespace cuda

}  // namespace hn
