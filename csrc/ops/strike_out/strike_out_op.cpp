// strike_out_op.cpp: strike_out_ and count_flags for torch: one call for the layers of a network.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "strike_out.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "strike_out_";

std::vector<StrikeSegment> make_segments(const std::vector<Tensor>& scores, const std::vector<Tensor>& flags) {
  HN_CHECK(!scores.empty(), kOp, ": expected at least one tensor of scores, got none");
  HN_CHECK(flags.size() == scores.size(), kOp, ": expected ", scores.size(), " planes of flags, got ", flags.size());
  std::vector<StrikeSegment> segments;
  for (size_t i = 0; i < scores.size(); ++i) {
    const Tensor& s = scores[i];
    check_type(kOp, "scores", s, ScalarType::Float);
    check_same_device(kOp, "scores", s, scores[0]);
    const bool channels_last = !s.is_contiguous();
    check_dense(kOp, "scores", s, channels_last);
    const Layout layout = layout_of(kOp, sizes_of(s), channels_last);
    check_part(kOp, "flags", flags[i], ScalarType::Byte, plane_bytes(layout.n), s);
    check_dense(kOp, "flags", flags[i], false);
    segments.push_back({static_cast<const float*>(s.data_ptr()), static_cast<uint8_t*>(flags[i].data_ptr()), layout});
  }
  return segments;
}

// One group a layer, or one for the whole list.
std::vector<StrikeGroup> make_groups(const std::vector<StrikeSegment>& segments, const Sizes& counts,
                                     bool network_wide) {
  const size_t expected = network_wide ? 1 : segments.size();
  HN_CHECK(counts.size() == expected, kOp, ": expected ", expected, " counts, got ", counts.size());
  std::vector<StrikeGroup> groups;
  for (size_t i = 0; i < segments.size(); ++i) {
    if (i == 0 || !network_wide) groups.push_back({int32_t(i), 0, 0, counts[groups.size()]});
    groups.back().segments += 1;
    groups.back().n += segments[i].layout.n;
  }
  for (const StrikeGroup& g : groups) {
    HN_CHECK(g.count >= 0 && g.count <= g.n, kOp, ": expected a count in [0, ", g.n, "], got ", g.count);
    HN_CHECK(g.n < int64_t(0xffffffff), kOp, ": expected fewer than 2^32 entries in a ranking, got ", g.n);
  }
  return groups;
}

}  // namespace

Tensor strike_out_op(const std::vector<Tensor>& scores, const std::vector<Tensor>& flags, const Sizes& counts,
                     bool network_wide, bool by_value, bool invert, bool exact) {
  HN_RANGE(kOp);
  const std::vector<StrikeSegment> segments = make_segments(scores, flags);
  const std::vector<StrikeGroup> groups = make_groups(segments, counts, network_wide);
  Tensor out = empty_on({int64_t(groups.size())}, ScalarType::Float, scores[0]);
  StrikeOutParams p{segments.data(),
                    groups.data(),
                    int32_t(segments.size()),
                    int32_t(groups.size()),
                    by_value ? Order::kValue : Order::kMagnitude,
                    invert,
                    exact,
                    static_cast<float*>(out.data_ptr()),
                    nullptr};
#if defined(HN_CUDA)
  Tensor workspace = empty_on({int64_t(strike_out_workspace(p))}, ScalarType::Byte, scores[0]);
  p.workspace = workspace.data_ptr();
#endif
  Guard(scores[0]).run(kOp, &strike_out, p);
  return out;
}

Tensor count_flags_op(const std::vector<Tensor>& flags) {
  HN_RANGE("count_flags");
  const char* op = "count_flags";
  HN_CHECK(!flags.empty(), op, ": expected at least one plane of flags, got none");
  std::vector<FlagPlane> planes;
  for (const Tensor& f : flags) {
    check_type(op, "flags", f, ScalarType::Byte);
    check_dense(op, "flags", f, false);
    check_same_device(op, "flags", f, flags[0]);
    planes.push_back({static_cast<const uint8_t*>(f.data_ptr()), f.numel()});
  }
  Tensor out = empty_on({int64_t(planes.size())}, ScalarType::Long, flags[0]);
  const CountFlagsParams p{planes.data(), int32_t(planes.size()), static_cast<int64_t*>(out.data_ptr())};
  Guard(flags[0]).run(op, &count_flags, p);
  return out;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("strike_out_", TORCH_BOX(&hn::HN_BACKEND::strike_out_op));
  m.impl("count_flags", TORCH_BOX(&hn::HN_BACKEND::count_flags_op));
}
