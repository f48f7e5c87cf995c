// scores_between.h: where scores lie in [low, high], in one reading of them: SynFlow looks at those near its threshold.
//
// Places count through all segments, one after another, and come in order. NaN is nowhere. A CPU alone has it: SynFlow
// on a GPU is a captured graph, which cannot have a result of unknown length.
#pragma once
#include <cstdint>
#include <vector>

namespace hn {

struct ScoreSegment {
  const float* scores;
  int64_t n;
};

struct ScoresBetweenParams {
  const ScoreSegment* segments;  // [num_segments]
  int32_t num_segments;
  float low, high;
};

namespace cpu {
std::vector<int64_t> scores_between(const ScoresBetweenParams& p);
}

}  // namespace hn
