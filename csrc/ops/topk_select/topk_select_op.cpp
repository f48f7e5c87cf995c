// topk_select_op.cpp: topk_select for torch: one call, one row of int32[4] a layer.
#include "../../base/backend.h"
#include "topk_select.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "topk_select";

// One group a layer, or one for the whole list.
std::vector<SelectGroup> make_groups(const std::vector<SelectSegment>& segments, const Sizes& k, bool network_wide) {
  std::vector<SelectGroup> groups;
  int64_t total = 0;
  for (const SelectSegment& s : segments) total += s.layout.n;
  if (network_wide) {
    groups.push_back({0, int32_t(segments.size()), total, k[0]});
  } else {
    for (size_t i = 0; i < segments.size(); ++i) groups.push_back({int32_t(i), 1, segments[i].layout.n, k[i]});
  }
  for (const SelectGroup& g : groups) {
    HN_CHECK(g.k >= 0 && g.k <= g.n, kOp, ": expected k in [0, ", g.n, "], got ", g.k);
#if defined(HN_CUDA)
    HN_CHECK(g.n < int64_t(1) << 32, kOp, ": expected fewer than 2^32 scores in one ranking on a GPU, got ", g.n);
#endif
  }
  return groups;
}

// The rows of all rankings into `out`, which may be `hint`.
void run_select(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide, bool keep_ties,
                const Selection* hint, const Tensor& out) {
  HN_RANGE("topk_select");
  std::vector<SelectSegment> segments;
  for (const Tensor& s : scores) {
    check_type(kOp, "scores", s, ScalarType::Float);
    check_same_device(kOp, "scores", s, scores[0]);
    const bool channels_last = !s.is_contiguous();
    check_dense(kOp, "scores", s, channels_last);
    const int32_t group = network_wide ? 0 : int32_t(segments.size());
    segments.push_back({static_cast<const float*>(s.data_ptr()), layout_of(kOp, sizes_of(s), channels_last), group});
  }
  const std::vector<SelectGroup> groups = make_groups(segments, k, network_wide);
  TopkSelectParams p{segments.data(),
                     groups.data(),
                     int32_t(segments.size()),
                     int32_t(groups.size()),
                     by_value ? Order::kValue : Order::kMagnitude,
                     hint,
                     static_cast<Selection*>(out.data_ptr()),
                     keep_ties,
                     nullptr};
#if defined(HN_CUDA)
  Tensor workspace = empty_on({int64_t(topk_select_workspace(p))}, ScalarType::Byte, scores[0]);
  p.workspace = workspace.data_ptr();
#endif
  Guard(scores[0]).run(kOp, &topk_select, p);
}

void check_lists(const std::vector<Tensor>& scores, const Sizes& k, bool network_wide) {
  HN_CHECK(!scores.empty(), kOp, ": expected at least one tensor of scores, got none");
  HN_CHECK(k.size() == (network_wide ? 1 : scores.size()), kOp, ": expected one k for each ranking, got ", k.size());
}

Selection* rows_of(const char* name, const Tensor& t, int64_t rows, const Tensor& like) {
  check_type(kOp, name, t, ScalarType::Int);
  HN_CHECK(t.numel() == rows * 4 && t.is_contiguous(), kOp, ": expected ", name, " of ", rows, " rows of 4 int32, got ",
           t.numel(), " elements");
  check_same_device(kOp, name, t, like);
  return static_cast<Selection*>(t.data_ptr());
}

}  // namespace

Tensor topk_select_op(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
                      const OptionalTensor& hint) {
  check_lists(scores, k, network_wide);
  const int64_t rows = int64_t(scores.size());
  const Selection* from = hint.has_value() && hint->defined() ? rows_of("hint", *hint, rows, scores[0]) : nullptr;
  Tensor out = empty_on({rows, 4}, ScalarType::Int, scores[0]);
  run_select(scores, k, by_value, network_wide, false, from, out);
  return out;
}

// From the rows of the last call to those of this one, in place.
void topk_select_in_place_op(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
                             bool keep_ties, const Tensor& rows) {
  check_lists(scores, k, network_wide);
  const Selection* from = rows_of("rows", rows, int64_t(scores.size()), scores[0]);
  run_select(scores, k, by_value, network_wide, keep_ties, from, rows);
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("topk_select", TORCH_BOX(&hn::HN_BACKEND::topk_select_op));
  m.impl("topk_select_", TORCH_BOX(&hn::HN_BACKEND::topk_select_in_place_op));
}
