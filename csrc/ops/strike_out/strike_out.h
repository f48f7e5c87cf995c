// strike_out.h: take the lowest-ranked active entries of a network out of its flags for good (Gem-Miner, arXiv 2202.12002).
//
// A flag is one bit an entry, in OIHW order; 1 = active. Segments of a group share one ranking of their active entries:
// by key (key.cuh), NaN highest, or with `invert` the other way round. With K = min(count, active entries) the threshold
// is the K-th in rank. All that rank up to it go, ties at the threshold included; with `exact` only K go, and of the
// ties the lower (segment, OIHW index) goes first. Scores of inactive entries are not ranked, and scores never change.
// Bits past the last entry of a plane are neither read nor changed.
//
// The threshold is written as a score. A group from which nothing goes (K = 0) has -inf, with `invert` +inf.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../../base/key.cuh"
#include "../../base/layout.cuh"

namespace hn {

struct StrikeSegment {
  const float* scores;  // [layout.n]
  uint8_t* flags;       // [ceil(layout.n / 8)], changed in place; no two segments share one
  Layout layout;        // of the scores
};

struct StrikeGroup {
  int32_t first_segment, segments;  // groups cover the segments in order
  int64_t n, count;                 // entries, active or not: fewer than 2^32; how many of the active ones go
};

struct StrikeOutParams {
  const StrikeSegment* segments;  // [num_segments], host memory
  const StrikeGroup* groups;      // [num_groups], host memory
  int32_t num_segments, num_groups;
  Order order;
  bool invert, exact;
  float* thresholds;  // [num_groups] on the device, written in full
  void* workspace;    // cuda: strike_out_workspace bytes on the device, contents ignored
};

// The key in the direction of the ranking: entries that go first have the lowest.
HN_HD uint32_t rank_key(uint32_t key, bool invert) { return invert ? ~key : key; }

HN_HD float threshold_of(Order order, bool invert, uint32_t ranked) {
  return score_of_key(order, rank_key(ranked, invert));
}

HN_HD float no_threshold(bool invert) { return bits_float(invert ? 0x7f800000u : 0xff800000u); }

struct FlagPlane {
  const uint8_t* bits;
  int64_t bytes;
};

// Ones in each plane, every bit of it.
struct CountFlagsParams {
  const FlagPlane* planes;  // [num_planes], host memory
  int32_t num_planes;
  int64_t* counts;  // [num_planes] on the device, written in full
};

namespace cpu {
void strike_out(const StrikeOutParams& p);
void count_flags(const CountFlagsParams& p);
}  // namespace cpu

namespace cuda {
size_t strike_out_workspace(const StrikeOutParams& p);   // bytes; depends on sizes only
int strike_out(const StrikeOutParams& p, void* stream);  // 0, a cudaError_t or kRefused
int count_flags(const CountFlagsParams& p, void* stream);
}  // namespace cuda

}  // namespace hn
