// quantize_codes_op.cpp: code_range, quantize_codes and threshold_gradient_ for torch.
#include "../../base/backend.h"
#include "quantize_codes.h"

namespace hn {
namespace HN_BACKEND {
namespace {

void check_lies_in_rows(const char* op, const char* name, const Tensor& t) {
  HN_CHECK(t.is_contiguous() || is_channels_last(t), op, ": expected ", name,
           " contiguous or channels_last, got other strides; call .contiguous() first");
  HN_CHECK(t.numel() <= kMaxElements, op, ": expected fewer than 2^31 elements, got ", t.numel());
}

const float* scalar_of(const char* op, const char* name, const Tensor& t, const Tensor& like) {
  check_type(op, name, t, ScalarType::Float);
  check_same_device(op, name, t, like);
  HN_CHECK(t.numel() == 1, op, ": expected ", name, " of one element, got ", t.numel());
  return static_cast<const float*>(t.data_ptr());
}

CodeType code_type_of(int64_t bits, bool is_signed) {
  if (bits <= 8) return is_signed ? CodeType::kInt8 : CodeType::kUint8;
  return bits < 16 || is_signed ? CodeType::kInt16 : CodeType::kInt32;
}

ScalarType scalar_type_of(CodeType type) {
  switch (type) {
    case CodeType::kUint8: return ScalarType::Byte;
    case CodeType::kInt8: return ScalarType::Char;
    case CodeType::kInt16: return ScalarType::Short;
    default: return ScalarType::Int;
  }
}

}  // namespace

// per_sample: a mean over the first dimension's maxima; else the maximum.
Tensor code_range_op(const Tensor& x, bool per_sample) {
  const char* op = "code_range";
  HN_RANGE(op);
  check_lies_in_rows(op, "x", x);
  const int64_t n = x.numel();
  const int64_t samples = per_sample && x.dim() > 0 && n > 0 ? x.size(0) : 1;
  Tensor maximum = empty_on({1}, ScalarType::Float, x);
  Tensor work = empty_on({samples + 1}, ScalarType::Int, x);
  Guard(x).run(op, &code_range,
               CodeRangeParams{x.data_ptr(), dtype_of(op, x), samples, n / samples,
                               static_cast<uint32_t*>(work.data_ptr()), static_cast<float*>(maximum.data_ptr())});
  return maximum;
}

// channels_last: the codes of a 4-dimensional x lie so, however x does; else they lie as x.
std::tuple<Tensor, Tensor> quantize_codes_op(const Tensor& x, const Tensor& maximum, int64_t bits, bool is_signed,
                                             bool channels_last) {
  const char* op = "quantize_codes";
  HN_RANGE(op);
  check_lies_in_rows(op, "x", x);
  HN_CHECK(bits >= 1 && bits <= 16, op, ": expected 1 to 16 bits, got ", bits);
  const float* range = scalar_of(op, "maximum", maximum, x);
  const CodeType type = code_type_of(bits, is_signed);
  HN_CHECK(!channels_last || x.dim() == 4, op, ": expected 4 dimensions for channels_last, got ", x.dim());
  const bool turned = channels_last && !is_channels_last(x) && x.numel() > 0;
  Tensor codes = empty_on(sizes_of(x), scalar_type_of(type), x, channels_last || !x.is_contiguous());
  Tensor delta = empty_on({1}, ScalarType::Float, x);
  Guard(x).run(op, &quantize_codes,
               QuantizeCodesParams{x.data_ptr(), dtype_of(op, x), x.numel(), range, int32_t(bits), is_signed, type,
                                   codes.data_ptr(), static_cast<float*>(delta.data_ptr()), turned ? x.size(1) : 0,
                                   turned ? x.size(2) * x.size(3) : 0});
  return {codes, delta};
}

void threshold_gradient_op(const Tensor& grad, const OptionalTensor& exact, const OptionalTensor& maximum,
                           double threshold, bool sign) {
  const char* op = "threshold_gradient_";
  HN_RANGE(op);
  check_type(op, "grad", grad, ScalarType::Float);
  check_lies_in_rows(op, "grad", grad);
  const float *beside = nullptr, *range = nullptr;
  if (exact.has_value() && exact->defined()) {
    check_type(op, "exact", *exact, ScalarType::Float);
    check_same_device(op, "exact", *exact, grad);
    HN_CHECK(exact->numel() == grad.numel(), op, ": expected exact of ", grad.numel(), " elements, got ",
             exact->numel());
    check_dense(op, "exact", *exact, !grad.is_contiguous());
    beside = static_cast<const float*>(exact->data_ptr());
  }
  if (maximum.has_value() && maximum->defined()) range = scalar_of(op, "maximum", *maximum, grad);
  Guard(grad).run(
      op, &threshold_gradient,
      ThresholdParams{static_cast<float*>(grad.data_ptr()), beside, range, grad.numel(), float(threshold), sign});
}

}  // namespace HN_BACKEND
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, HN_KEY, m) {
  m.impl("code_range", TORCH_BOX(&hn::HN_BACKEND::code_range_op));
  m.impl("quantize_codes", TORCH_BOX(&hn::HN_BACKEND::quantize_codes_op));
  m.impl("threshold_gradient_", TORCH_BOX(&hn::HN_BACKEND::threshold_gradient_op));
}
