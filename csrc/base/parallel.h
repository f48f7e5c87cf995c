// parallel.h: parallel_for for the CPU loops: torch's thread pool inside the extension, a plain loop without torch.
#pragma once
#include <cstdint>

#if !defined(HN_NO_TORCH)
#include <torch/csrc/stable/ops.h>
#endif

namespace hn {

// Calls f(begin, end) over disjoint ranges that cover [begin, end), each of at least `grain` (but for the last).
template <class F>
inline void parallel_for(int64_t begin, int64_t end, [[maybe_unused]] int64_t grain, const F& f) {
  if (begin >= end) return;
#if defined(HN_NO_TORCH)
  f(begin, end);
#else
  torch::stable::parallel_for(begin, end, grain, f);
#endif
}

}  // namespace hn
