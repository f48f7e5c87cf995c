// mask_op.cpp: rule_mask, pack_mask and unpack_mask for torch.
#include "../../base/backend.h"
#include "../../base/weight_args.h"
#include "mask.h"

namespace hn {
namespace HN_BACKEND {

Tensor rule_mask_op(const OptionalTensor& scores, const Tensor& selection, const Sizes& shape, bool channels_last,
                    int64_t rule, const OptionalTensor& bits, const OptionalTensor& step, int64_t rule_seed,
                    int64_t layer) {
  HN_RANGE("rule_mask");
  const char* op = "rule_mask";
  const Layout layout = layout_of(op, shape, channels_last);
  const Rule r = make_rule(op, {rule, selection, bits, step, rule_seed}, layout.n, layer);
  Tensor out = empty_on(shape, ScalarType::Bool, selection, channels_last);
  const RuleMaskParams p{make_scores(op, scores, r.kind, shape, channels_last, selection), r, layout,
                         static_cast<uint8_t*>(out.data_ptr())};
  if (layout.n > 0) Guard(selection).run(op, &rule_mask, p);
  return out;
}

Tensor pack_mask_op(const Tensor& mask) {
  HN_RANGE("pack_mask");
  const char* op = "pack_mask";
  check_type(op, "mask", mask, ScalarType::Bool);
  const bool channels_last = !mask.is_contiguous();
  check_dense(op, "mask", mask, channels_last);
  const Layout layout = layout_of(op, sizes_of(mask), channels_last);
  Tensor out = empty_on({plane_bytes(layout.n)}, ScalarType::Byte, mask);
  const PackMaskParams p{static_cast<const uint8_t*>(mask.data_ptr()), layout, static_cast<uint8_t*>(out.data_ptr())};
  if (layout.n > 0) Guard(mask).run(op, &pack_mask, p);
  return out;
}

Tensor unpack_mask_op(const Tensor& bits, const Sizes& shape) {
  HN_RANGE("unpack_mask");
  const char* op = "unpack_mask";
  const Layout layout = layout_of(op, shape, false);
  check_part(op, "bits", bits, ScalarType::Byte, plane_bytes(layout.n), bits);
  check_dense(op, "bits", bits, false);
  Tensor out = empty_on(shape, ScalarType::Bool, bits);
  const UnpackMaskParams p{static_cast<const uint8_t*>(bits.data_ptr()), layout, static_cast<uint8_t*>(out.data_ptr())};
  if (layout.n > 0) Guard(bits).run(op, &unpack_mask, p);
  return out;
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("rule_mask", TORCH_BOX(&hn::HN_BACKEND::rule_mask_op));
  m.impl("pack_mask", TORCH_BOX(&hn::HN_BACKEND::pack_mask_op));
  m.impl("unpack_mask", TORCH_BOX(&hn::HN_BACKEND::unpack_mask_op));
}
