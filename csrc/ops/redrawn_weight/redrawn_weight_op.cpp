// redrawn_weight_op.cpp: redrawn_weight for torch: int16 redraw numbers in, float32 weights out.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "redrawn_weight.h"

namespace hn {
namespace HN_BACKEND {

Tensor redrawn_weight_op(const Tensor& redraws, int64_t kind, double scale, int64_t seed, int64_t layer) {
  HN_RANGE("redrawn_weight");
  const char* op = "redrawn_weight";
  HN_CHECK(kind >= int64_t(Source::kConstant) && kind <= kLastSource, op, ": expected a source code 1..", kLastSource,
           ", got ", kind);
  check_type(op, "redraws", redraws, ScalarType::Short);
  const bool channels_last = !redraws.is_contiguous();
  check_dense(op, "redraws", redraws, channels_last);
  const Layout layout = layout_of(op, sizes_of(redraws), channels_last);
  Tensor out = empty_on(sizes_of(redraws), ScalarType::Float, redraws, channels_last);
  const RedrawnWeightParams p{static_cast<const int16_t*>(redraws.data_ptr()),
                              Source(kind),
                              float(scale),
                              make_draw(seed, layer, 0),
                              layout,
                              static_cast<float*>(out.data_ptr())};
  if (layout.n > 0) Guard(redraws).run(op, &redrawn_weight, p);
  return out;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("redrawn_weight", TORCH_BOX(&hn::HN_BACKEND::redrawn_weight_op));
}
