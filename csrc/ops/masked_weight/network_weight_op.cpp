// network_weight_op.cpp: network_weight_ for torch: the effective weights of all layers in one call, into tensors given.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "masked_weight.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "network_weight_";
constexpr size_t kNumbers = 6;  // a layer: rule, its seed, source, its seed, layer, redraw

OptionalTensor if_there(const Tensor& t) { return t.numel() == 0 ? OptionalTensor() : OptionalTensor(t); }

}  // namespace

// An empty tensor stands for none.
void network_weight_op(const std::vector<Tensor>& out, const std::vector<Tensor>& scores,
                       const std::vector<Tensor>& selections, const std::vector<Tensor>& bits,
                       const std::vector<Tensor>& steps, const std::vector<Tensor>& parts, const Sizes& numbers,
                       const std::vector<double>& scales) {
  HN_RANGE("network_weight_");
  const size_t count = out.size();
  HN_CHECK(count > 0, kOp, ": expected at least one layer, got none");
  HN_CHECK(scores.size() == count && selections.size() == count && bits.size() == count && steps.size() == count &&
               parts.size() == count && numbers.size() == kNumbers * count && scales.size() == count,
           kOp, ": expected every list of ", count, " layers like out");
  std::vector<MaskedWeightParams> layers;
  for (size_t i = 0; i < count; ++i) {
    const Tensor& to = out[i];
    const int64_t* n = numbers.data() + kNumbers * i;
    check_same_device(kOp, "out", to, out[0]);
    check_same_device(kOp, "selections", selections[i], to);
    const bool channels_last = !to.is_contiguous();
    check_dense(kOp, "out", to, channels_last);
    const Sizes shape = sizes_of(to);
    const Layout layout = layout_of(kOp, shape, channels_last);
    const OptionalTensor plane = if_there(bits[i]), step = if_there(steps[i]), part = if_there(parts[i]), none;
    const Rule rule = make_rule(kOp, {n[0], selections[i], plane, step, n[1]}, layout.n, n[4]);
    const bool is_stored = n[2] == int64_t(Source::kStored);
    const WeightSource source =
        make_source(kOp, {n[2], is_stored ? part : none, is_stored ? none : part, scales[i], n[3], n[4], n[5]},
                    layout.n, channels_last, to);
    layers.push_back({make_scores(kOp, if_there(scores[i]), rule.kind, shape, channels_last, to), rule, source, layout,
                      dtype_of(kOp, to), to.data_ptr()});
  }
  Guard(out[0]).run(kOp, &network_weight, NetworkWeightParams{layers.data(), int32_t(count)});
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("network_weight_", TORCH_BOX(&hn::HN_BACKEND::network_weight_op));
}
