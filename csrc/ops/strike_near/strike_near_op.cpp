// strike_near_op.cpp: strike_near_ for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include <algorithm>
#include <tuple>

#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "strike_near.h"

namespace hn {
namespace cpu {

// The threshold [1], how many scores are below those near [1], and the places of those.
std::tuple<Tensor, Tensor, Tensor> strike_near_op(const std::vector<Tensor>& scores, const std::vector<Tensor>& flags,
                                                  int64_t count, double margin) {
  const char* op = "strike_near_";
  HN_RANGE(op);
  HN_CHECK(!scores.empty(), op, ": expected at least one tensor of scores, got none");
  HN_CHECK(flags.size() == scores.size(), op, ": expected ", scores.size(), " planes of flags, got ", flags.size());
  std::vector<NearSegment> segments;
  int64_t entries = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const Tensor& s = scores[i];
    check_type(op, "scores", s, ScalarType::Float);
    check_dense(op, "scores", s, false);
    check_same_device(op, "scores", s, scores[0]);
    check_part(op, "flags", flags[i], ScalarType::Byte, plane_bytes(s.numel()), s);
    check_dense(op, "flags", flags[i], false);
    segments.push_back(
        {static_cast<const float*>(s.data_ptr()), static_cast<uint8_t*>(flags[i].data_ptr()), s.numel()});
    entries += s.numel();
  }
  HN_CHECK(entries < (int64_t(1) << 31), op, ": expected fewer than 2^31 entries, got ", entries);
  HN_CHECK(count >= 1 && count <= entries, op, ": expected a count in [1, ", entries, "], got ", count);
  HN_CHECK(margin >= 0.0 && margin < 1.0, op, ": expected a margin in [0, 1), got ", margin);
  const StrikeNearResult found = strike_near({segments.data(), int32_t(segments.size()), count, margin});
  Tensor threshold = empty_on({1}, ScalarType::Float, scores[0]);
  Tensor below = empty_on({1}, ScalarType::Long, scores[0]);
  Tensor places = empty_on({int64_t(found.places.size())}, ScalarType::Long, scores[0]);
  *static_cast<float*>(threshold.data_ptr()) = found.threshold;
  *static_cast<int64_t*>(below.data_ptr()) = found.below;
  std::copy(found.places.begin(), found.places.end(), static_cast<int64_t*>(places.data_ptr()));
  return {threshold, below, places};
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) { m.impl("strike_near_", TORCH_BOX(&hn::cpu::strike_near_op)); }
#endif
