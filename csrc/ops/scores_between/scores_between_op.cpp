// scores_between_op.cpp: scores_between for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include <algorithm>

#include "../../base/backend.h"
#include "scores_between.h"

namespace hn {
namespace cpu {

Tensor scores_between_op(const std::vector<Tensor>& scores, double low, double high) {
  const char* op = "scores_between";
  HN_RANGE(op);
  HN_CHECK(!scores.empty(), op, ": expected at least one tensor of scores, got none");
  std::vector<ScoreSegment> segments;
  for (const Tensor& s : scores) {
    check_type(op, "scores", s, ScalarType::Float);
    check_dense(op, "scores", s, false);
    check_same_device(op, "scores", s, scores[0]);
    segments.push_back({static_cast<const float*>(s.data_ptr()), s.numel()});
  }
  const std::vector<int64_t> places =
      scores_between({segments.data(), int32_t(segments.size()), float(low), float(high)});
  Tensor out = empty_on({int64_t(places.size())}, ScalarType::Long, scores[0]);
  std::copy(places.begin(), places.end(), static_cast<int64_t*>(out.data_ptr()));
  return out;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) { m.impl("scores_between", TORCH_BOX(&hn::cpu::scores_between_op)); }
#endif
