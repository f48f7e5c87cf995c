// topk_select_op.cpp: topk_select for torch: one call, one row of int32[4] a layer.
#include "select_args.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "topk_select";

// The rows of all rankings into `out`, which may be `hint`.
void run_select(Ranking* ranking, const Tensor& like, const Selection* hint, const Tensor& out) {
  HN_RANGE("topk_select");
  TopkSelectParams& p = ranking->params();
  p.hint = hint;
  p.out = static_cast<Selection*>(out.data_ptr());
#if defined(HN_CUDA)
  Tensor workspace = empty_on({int64_t(topk_select_workspace(p))}, ScalarType::Byte, like);
  p.workspace = workspace.data_ptr();
#endif
  Guard(like).run(kOp, &topk_select, p);
}

}  // namespace

Tensor topk_select_op(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
                      const OptionalTensor& hint) {
  Ranking ranking(kOp, scores, k, by_value, network_wide, false);
  const bool warm = hint.has_value() && hint->defined();
  const Selection* from = warm ? selection_rows(kOp, "hint", *hint, scores.size(), scores[0]) : nullptr;
  Tensor out = empty_on({int64_t(scores.size()), 4}, ScalarType::Int, scores[0]);
  run_select(&ranking, scores[0], from, out);
  return out;
}

// From the rows of the last call to those of this one, in place. counts: what score_step_ counted since, or none.
void topk_select_in_place_op(const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
                             bool keep_ties, const Tensor& rows, const OptionalTensor& counts) {
  Ranking ranking(kOp, scores, k, by_value, network_wide, keep_ties);
  const Selection* from = selection_rows(kOp, "rows", rows, scores.size(), scores[0]);
  ranking.set_counts(kOp, counts, scores[0]);
  run_select(&ranking, scores[0], from, rows);
}

// Bytes of the tensor, zeros at first, in which score_step_ counts for this selection; 0: it cannot.
int64_t topk_counts_bytes_op(const std::vector<Tensor>& scores, const Sizes& k, bool network_wide) {
  Ranking ranking("topk_counts_bytes", scores, k, false, network_wide, false);
  return int64_t(topk_counts_bytes(ranking.params()));
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("topk_select", TORCH_BOX(&hn::HN_BACKEND::topk_select_op));
  m.impl("topk_select_", TORCH_BOX(&hn::HN_BACKEND::topk_select_in_place_op));
  m.impl("topk_counts_bytes", TORCH_BOX(&hn::HN_BACKEND::topk_counts_bytes_op));
}
