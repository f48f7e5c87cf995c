// scores_between_cpu.cpp: runs of scores are asked whether any lies between; the few that say so are looked through.
#include <algorithm>
#include <mutex>

#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "scores_between.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kRun = 256;
constexpr int64_t kGrain = 128;  // runs that are worth a thread

HN_INLINE void any_between_body(const float* scores, int64_t n, float low, float high, bool* found) {
  int32_t any = 0;
  for (int64_t i = 0; i < n; ++i) any |= int32_t(scores[i] >= low) & int32_t(scores[i] <= high);
  *found = any != 0;
}

HN_DISPATCH(any_between, any_between_body)

}  // namespace

std::vector<int64_t> scores_between(const ScoresBetweenParams& p) {
  std::vector<int64_t> places;
  std::mutex merging;
  int64_t before = 0;
  for (int32_t g = 0; g < p.num_segments; ++g) {
    const ScoreSegment& s = p.segments[g];
    parallel_for(0, (s.n + kRun - 1) / kRun, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> mine;
      for (int64_t run = begin; run < end; ++run) {
        const int64_t first = run * kRun, n = std::min(kRun, s.n - first);
        bool any = false;
        any_between(s.scores + first, n, p.low, p.high, &any);
        for (int64_t i = first; any && i < first + n; ++i) {
          if (s.scores[i] >= p.low && s.scores[i] <= p.high) mine.push_back(before + i);
        }
      }
      const std::lock_guard<std::mutex> lock(merging);
      places.insert(places.end(), mine.begin(), mine.end());
    });
    before += s.n;
  }
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace cpu
}  // namespace hn
