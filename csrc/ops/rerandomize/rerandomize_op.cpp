// rerandomize_op.cpp: rerandomize_ for torch: one call changes the weights of all layers in place.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "rerandomize.h"

namespace hn {
namespace HN_BACKEND {
namespace {

constexpr const char* kOp = "rerandomize_";

// A plane of signs, or floats as the scores.
void set_weights(const Tensor& weights, bool channels_last, RedrawSegment* s) {
  if (weights.scalar_type() == ScalarType::Byte) {
    HN_CHECK(s->kind == Source::kSigns, kOp, ": expected float32 weights for source code ", int(s->kind),
             ", got a plane of signs");
    check_part(kOp, "weights", weights, ScalarType::Byte, plane_bytes(s->layout.n), weights);
    check_dense(kOp, "weights", weights, false);
    s->plane = static_cast<uint8_t*>(weights.data_ptr());
  } else {
    check_part(kOp, "weights", weights, ScalarType::Float, s->layout.n, weights);
    check_dense(kOp, "weights", weights, channels_last);
    s->weights = static_cast<float*>(weights.data_ptr());
  }
}

}  // namespace

void rerandomize_op(const std::vector<Tensor>& weights, const std::vector<Tensor>& scores, const Tensor& selection,
                    const Sizes& kinds, const std::vector<double>& scales, int64_t seed, const Sizes& layers,
                    int64_t redraw, int64_t limit, bool by_value, const std::vector<Tensor>& redraws,
                    std::optional<double> decay, std::optional<double> mix) {
  HN_RANGE("rerandomize_");
  const size_t rows = scores.size();
  HN_CHECK(rows > 0, kOp, ": expected at least one layer, got none");
  HN_CHECK(weights.size() == rows && kinds.size() == rows && scales.size() == rows && layers.size() == rows &&
               (redraws.empty() || redraws.size() == rows),
           kOp, ": expected every list of ", rows, " entries like scores");
  HN_CHECK(limit >= 0 && limit <= int64_t(1) << 32, kOp, ": expected limit in [0, 2^32], got ", limit);
  HN_CHECK(redraws.empty() || (redraw >= 0 && redraw <= 32767), kOp, ": expected redraw up to 32767, got ", redraw);
  const bool blend = decay.has_value() && mix.has_value();
  HN_CHECK(decay.has_value() == mix.has_value(), kOp, ": expected decay and mix together");
  HN_CHECK(!blend || (redraws.empty() && limit == int64_t(1) << 32), kOp,
           ": expected neither redraws nor a rate with decay and mix");
  check_type(kOp, "selection", selection, ScalarType::Int);
  HN_CHECK(selection.numel() == int64_t(rows) * 4 && selection.is_contiguous(), kOp, ": expected a selection of ", rows,
           " rows of 4 int32, got ", selection.numel(), " elements");
  check_same_device(kOp, "selection", selection, scores[0]);
  std::vector<RedrawSegment> segments;
  for (size_t l = 0; l < rows; ++l) {
    const Tensor& s = scores[l];
    check_type(kOp, "scores", s, ScalarType::Float);
    check_same_device(kOp, "scores", s, scores[0]);
    check_same_device(kOp, "weights", weights[l], scores[0]);
    const bool channels_last = !s.is_contiguous();
    check_dense(kOp, "scores", s, channels_last);
    HN_CHECK(kinds[l] >= int64_t(Source::kConstant) && kinds[l] <= kLastSource, kOp, ": expected source codes 1..",
             kLastSource, ", got ", kinds[l]);
    RedrawSegment segment{
        static_cast<const float*>(s.data_ptr()),    nullptr,          nullptr,          nullptr,
        layout_of(kOp, sizes_of(s), channels_last), Source(kinds[l]), float(scales[l]), uint32_t(layers[l])};
    set_weights(weights[l], channels_last, &segment);
    HN_CHECK(!blend || segment.plane == nullptr, kOp, ": expected float32 weights with decay and mix");
    if (!redraws.empty()) {
      check_part(kOp, "redraws", redraws[l], ScalarType::Short, segment.layout.n, s);
      check_dense(kOp, "redraws", redraws[l], channels_last);
      segment.redraws = static_cast<int16_t*>(redraws[l].data_ptr());
    }
    segments.push_back(segment);
  }
  const Draw draw = make_draw(seed, 0, redraw);
  const RerandomizeParams p{segments.data(),
                            int32_t(rows),
                            static_cast<const Selection*>(selection.data_ptr()),
                            by_value ? Order::kValue : Order::kMagnitude,
                            draw.key0,
                            draw.key1,
                            draw.redraw,
                            uint64_t(limit),
                            blend,
                            float(decay.value_or(1.0)),
                            float(mix.value_or(0.0))};
  Guard(scores[0]).run(kOp, &rerandomize, p);
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) { m.impl("rerandomize_", TORCH_BOX(&hn::HN_BACKEND::rerandomize_op)); }
