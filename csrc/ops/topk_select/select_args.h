// select_args.h: what is ranked, as topk_select takes it, from the tensors and numbers of an op.
#pragma once
#include <vector>

#include "../../base/backend.h"
#include "topk_select.h"

namespace hn {
namespace HN_BACKEND {

// One ranking a layer, or one for the whole list; refuses what cannot be ranked. Its parts live as long as it does.
class Ranking {
 public:
  Ranking(const char* op, const std::vector<Tensor>& scores, const Sizes& k, bool by_value, bool network_wide,
          bool keep_ties) {
    HN_CHECK(!scores.empty(), op, ": expected at least one tensor of scores, got none");
    HN_CHECK(k.size() == (network_wide ? 1 : scores.size()), op, ": expected one k for each ranking, got ", k.size());
    for (const Tensor& s : scores) {
      check_type(op, "scores", s, ScalarType::Float);
      check_same_device(op, "scores", s, scores[0]);
      const bool channels_last = !s.is_contiguous();
      check_dense(op, "scores", s, channels_last);
      const int32_t group = network_wide ? 0 : int32_t(segments_.size());
      segments_.push_back({static_cast<const float*>(s.data_ptr()), layout_of(op, sizes_of(s), channels_last), group});
    }
    for (size_t g = 0; g < k.size(); ++g) {
      groups_.push_back({int32_t(g), network_wide ? int32_t(scores.size()) : 1, 0, k[g]});
    }
    for (const SelectSegment& s : segments_) groups_[size_t(s.group)].n += s.layout.n;
    for (const SelectGroup& g : groups_) {
      HN_CHECK(g.k >= 0 && g.k <= g.n, op, ": expected k in [0, ", g.n, "], got ", g.k);
#if defined(HN_CUDA)
      HN_CHECK(g.n < int64_t(1) << 32, op, ": expected fewer than 2^32 scores in one ranking on a GPU, got ", g.n);
#endif
    }
    params_ = {segments_.data(),
               groups_.data(),
               int32_t(segments_.size()),
               int32_t(groups_.size()),
               by_value ? Order::kValue : Order::kMagnitude,
               nullptr,
               nullptr,
               keep_ties,
               nullptr};
  }
  Ranking(const Ranking&) = delete;

  TopkSelectParams& params() { return params_; }

  // Takes what a step counts, or counted: a tensor of topk_counts_bytes, or none.
  void set_counts(const char* op, const OptionalTensor& counts, const Tensor& like) {
    if (!counts.has_value() || !counts->defined()) return;
    check_type(op, "counts", *counts, ScalarType::Byte);
    check_same_device(op, "counts", *counts, like);
    const size_t bytes = topk_counts_bytes(params_);
    HN_CHECK(bytes != 0 && counts->is_contiguous() && size_t(counts->numel()) == bytes, op, ": expected counts of ",
             bytes, " bytes, got ", counts->numel());
    params_.counts = counts->data_ptr();
  }

 private:
  std::vector<SelectSegment> segments_;
  std::vector<SelectGroup> groups_;
  TopkSelectParams params_;
};

inline Selection* selection_rows(const char* op, const char* name, const Tensor& t, size_t rows, const Tensor& like) {
  check_type(op, name, t, ScalarType::Int);
  HN_CHECK(t.numel() == int64_t(rows) * 4 && t.is_contiguous(), op, ": expected ", name, " of ", rows,
           " rows of 4 int32, got ", t.numel(), " elements");
  check_same_device(op, name, t, like);
  return static_cast<Selection*>(t.data_ptr());
}

}  // namespace HN_BACKEND
}  // namespace hn
