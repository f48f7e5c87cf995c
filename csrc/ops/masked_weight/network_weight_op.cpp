// network_weight_op.cpp: network_weight for torch: the effective weights of all layers in one call.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "masked_weight.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "network_weight";
constexpr size_t kNumbers = 8;  // a layer: rule, its seed, source, its seed, layer, redraw, channels_last, dimensions

// A list may be empty: of none in any layer; an empty tensor stands for none in this one.
OptionalTensor if_there(const std::vector<Tensor>& all, size_t i) {
  return all.empty() || all[i].numel() == 0 ? OptionalTensor() : OptionalTensor(all[i]);
}

}  // namespace

// selections: one row a layer, or one tensor of a row a layer. shapes: one after the other.
std::vector<Tensor> network_weight_op(const std::vector<Tensor>& scores, const std::vector<Tensor>& selections,
                                      const std::vector<Tensor>& bits, const std::vector<Tensor>& steps,
                                      const std::vector<Tensor>& parts, const Sizes& numbers,
                                      const std::vector<double>& scales, const Sizes& shapes, const Sizes& dtypes) {
  HN_RANGE("network_weight");
  const size_t count = dtypes.size();
  HN_CHECK(count > 0, kOp, ": expected at least one layer, got none");
  for (const auto* list : {&scores, &bits, &steps, &parts}) {
    HN_CHECK(list->empty() || list->size() == count, kOp, ": expected lists of ", count,
             " layers, or of none, got one of ", list->size());
  }
  HN_CHECK(numbers.size() == kNumbers * count && scales.size() == count, kOp, ": expected numbers and scales of ",
           count, " layers");
  const bool joined = selections.size() == 1 && count > 1;
  HN_CHECK(joined || selections.size() == count, kOp, ": expected a selection a layer, or one of all, got ",
           selections.size());
  const Tensor& like = selections[0];
  if (joined) {
    check_type(kOp, "selections", like, ScalarType::Int);
    HN_CHECK(like.numel() == int64_t(4 * count) && like.is_contiguous(), kOp, ": expected selections of ", count,
             " rows of 4 int32, got ", like.numel(), " elements");
  }
  std::vector<MaskedWeightParams> layers;
  std::vector<Tensor> made;
  layers.reserve(count);
  made.reserve(count);
  size_t at = 0;  // among the shapes
  for (size_t i = 0; i < count; ++i) {
    const int64_t* n = numbers.data() + kNumbers * i;
    const bool channels_last = n[6] != 0;
    HN_CHECK(n[7] >= 0 && size_t(n[7]) <= shapes.size() - at, kOp,
             ": expected shapes of all layers, got fewer numbers");
    const Sizes shape(shapes.begin() + int64_t(at), shapes.begin() + int64_t(at) + n[7]);
    at += shape.size();
    const Layout layout = layout_of(kOp, shape, channels_last);
    const Tensor& row = selections[joined ? 0 : i];
    check_same_device(kOp, "selections", row, like);
    const OptionalTensor plane = if_there(bits, i), step = if_there(steps, i), part = if_there(parts, i), none;
    const Rule rule = make_rule(kOp, {n[0], row, plane, step, n[1]}, layout.n, n[4], joined ? int64_t(i) : -1);
    const bool is_stored = n[2] == int64_t(Source::kStored);
    const WeightSource source =
        make_source(kOp, {n[2], is_stored ? part : none, is_stored ? none : part, scales[i], n[3], n[4], n[5]},
                    layout.n, channels_last, like);
    const float* own = make_scores(kOp, if_there(scores, i), rule.kind, shape, channels_last, like);
    const Dtype type = dtype_of_code(kOp, dtypes[i]);
    made.push_back(empty_on(shape, scalar_type_of(type), like, channels_last));
    layers.push_back({own, rule, source, layout, type, made[i].data_ptr()});
  }
  Guard(like).run(kOp, &network_weight, NetworkWeightParams{layers.data(), int32_t(count)});
  return made;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("network_weight", TORCH_BOX(&hn::HN_BACKEND::network_weight_op));
}
