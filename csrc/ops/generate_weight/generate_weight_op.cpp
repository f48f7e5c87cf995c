// generate_weight_op.cpp: generate_weight and generate_signs for torch: fill a tensor from a seed.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "generate_weight.h"

namespace hn {
namespace HN_BACKEND {

void generate_weight_op(Tensor out, int64_t source, bool signs, double scale, int64_t seed, int64_t layer,
                        int64_t redraw) {
  HN_RANGE("generate_weight");
  const char* op = "generate_weight";
  HN_CHECK(source == int64_t(Source::kConstant) || (source > int64_t(Source::kSigns) && source <= kLastSource), op,
           ": expected a source code 1 (constant) or 3..", kLastSource, ", got ", source);
  HN_CHECK(!signs || source == int64_t(Source::kConstant), op, ": expected signs only with a constant");
  const bool channels_last = !out.is_contiguous();
  check_dense(op, "out", out, channels_last);
  const Layout layout = layout_of(op, sizes_of(out), channels_last);
  const WeightSource from{Source(source), nullptr, nullptr, float(scale), make_draw(seed, layer, redraw)};
  const GenerateWeightParams p{from, signs, layout, dtype_of(op, out), out.data_ptr()};
  if (layout.n > 0) Guard(out).run(op, &generate_weight, p);
}

void generate_signs_op(Tensor plane, int64_t n, int64_t seed, int64_t layer, int64_t redraw) {
  HN_RANGE("generate_signs");
  const char* op = "generate_signs";
  HN_CHECK(n >= 0 && n <= kMaxElements, op, ": expected fewer than 2^31 elements, got ", n);
  check_part(op, "plane", plane, ScalarType::Byte, plane_bytes(n), plane);
  check_dense(op, "plane", plane, false);
  const GenerateSignsParams p{make_draw(seed, layer, redraw), int32_t(n), static_cast<uint8_t*>(plane.data_ptr())};
  if (n > 0) Guard(plane).run(op, &generate_signs, p);
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("generate_weight", TORCH_BOX(&hn::HN_BACKEND::generate_weight_op));
  m.impl("generate_signs", TORCH_BOX(&hn::HN_BACKEND::generate_signs_op));
}
