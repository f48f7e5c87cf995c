// strike_near.h: flags of the scores above the K-th smallest, and where scores lie near it, in one reading (SynFlow).
//
// All entries of all segments share one ranking by magnitude. The threshold is the K-th smallest |score|; a flag is set
// where |score| is above it, so that all ties go. Near are the scores within [threshold * (1 - margin), threshold *
// (1 + margin)], the ends rounded to float. Bits past the last entry of a plane are cleared.
// Where a score is infinite or NaN the threshold is NaN, nothing is near and no flag changes.
//
// A CPU alone has it: SynFlow on a GPU is a captured graph, which cannot have a result of unknown length.
#pragma once
#include <cstdint>
#include <vector>

namespace hn {

struct NearSegment {
  const float* scores;  // [n]
  uint8_t* flags;       // [ceil(n / 8)], written in full
  int64_t n;
};

struct StrikeNearParams {
  const NearSegment* segments;  // [num_segments], fewer than 2^31 entries together
  int32_t num_segments;
  int64_t count;  // K, in [1, all entries]
  double margin;  // relative, in [0, 1)
};

struct StrikeNearResult {
  float threshold;
  int64_t below;                // scores lower than those near; if the threshold is 0 the scores of 0
  std::vector<int64_t> places;  // of those near, counted through all segments, ascending
};

namespace cpu {
StrikeNearResult strike_near(const StrikeNearParams& p);
}

}  // namespace hn
