// bop_step_op.cpp: bop_step_ for torch: one call changes the weights, averages and counters of all layers.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "bop_step.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "bop_step_";

int64_t* counter(const char* name, const Tensor& t, const Tensor& like) {
  check_part(kOp, name, t, ScalarType::Long, 1, like);
  return static_cast<int64_t*>(t.data_ptr());
}

}  // namespace

// flags: none, or one a layer, empty where all elements may flip. fresh: 1 where the average starts from the gradient.
void bop_step_op(const std::vector<Tensor>& weights, const std::vector<Tensor>& grads,
                 const std::vector<Tensor>& averages, const std::vector<Tensor>& flips,
                 const std::vector<Tensor>& total_flips, const std::vector<Tensor>& flags, const Sizes& fresh,
                 double adaptivity_rate, double threshold) {
  HN_RANGE("bop_step_");
  const size_t rows = weights.size();
  HN_CHECK(rows > 0, kOp, ": expected a non-empty list of weights");
  HN_CHECK(grads.size() == rows && averages.size() == rows && flips.size() == rows && total_flips.size() == rows &&
               fresh.size() == rows,
           kOp, ": expected a gradient, an average, two counters and `fresh` for each of ", rows, " weights");
  HN_CHECK(flags.empty() || flags.size() == rows, kOp, ": expected one plane of flags for each weight, or none");
  std::vector<BopSegment> segments;
  for (size_t i = 0; i < rows; ++i) {
    const Tensor& t = weights[i];
    check_type(kOp, "weights", t, ScalarType::Float);
    check_same_device(kOp, "weights", t, weights[0]);
    const bool channels_last = !t.is_contiguous();
    check_dense(kOp, "weights", t, channels_last);
    BopSegment s{};
    s.weights = static_cast<float*>(t.data_ptr());
    s.layout = layout_of(kOp, sizes_of(t), channels_last);
    s.grad = floats_beside(kOp, "grads", grads[i], s.layout, t);
    s.average = floats_beside(kOp, "averages", averages[i], s.layout, t);
    s.flags = flags_beside(kOp, flags, i, s.layout, t);
    s.flips = counter("flips", flips[i], t);
    s.total = counter("total_flips", total_flips[i], t);
    s.fresh = fresh[i] != 0;
    segments.push_back(s);
  }
  Tensor scratch = empty_on({int64_t(rows)}, ScalarType::Long, weights[0]);
  const BopHyper hyper{float(1.0 - adaptivity_rate), float(adaptivity_rate), float(threshold)};
  Guard(weights[0])
      .run(kOp, &bop_step,
           BopStepParams{segments.data(), int32_t(rows), hyper, static_cast<unsigned long long*>(scratch.data_ptr())});
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("bop_step_", TORCH_BOX(&hn::HN_BACKEND::bop_step_op)); }
