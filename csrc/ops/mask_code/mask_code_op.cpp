// mask_code_op.cpp: encode_mask and decode_mask for torch, on a CPU alone.
#if !defined(HN_CUDA)
#include <cstring>

#include "../../base/backend.h"
#include "mask_code.h"

namespace hn {
namespace cpu {
namespace {

MaskCode code_of(const char* op, const Sizes& frequencies) {
  MaskCode code;
  HN_CHECK(frequencies.size() == 9 && make_mask_code(frequencies.data(), code), op,
           ": expected frequencies of bytes by their number of ones, 65536 in all");
  return code;
}

const uint8_t* bytes_of(const char* op, const char* name, const Tensor& t) {
  check_type(op, name, t, ScalarType::Byte);
  HN_CHECK(t.dim() == 1, op, ": expected ", name, " of one dimension, got ", t.dim());
  check_dense(op, name, t, false);
  return static_cast<const uint8_t*>(t.data_ptr());
}

}  // namespace

Tensor encode_mask_op(const Tensor& bits, const Sizes& frequencies) {
  const char* op = "encode_mask";
  HN_RANGE(op);
  const MaskCode code = code_of(op, frequencies);
  const std::vector<uint8_t> coded = encode_mask(code, bytes_of(op, "bits", bits), bits.size(0));
  Tensor out = empty_on({int64_t(coded.size())}, ScalarType::Byte, bits);
  std::memcpy(out.data_ptr(), coded.data(), coded.size());
  return out;
}

Tensor decode_mask_op(const Tensor& coded, const Sizes& frequencies, int64_t count) {
  const char* op = "decode_mask";
  HN_RANGE(op);
  HN_CHECK(count >= 0 && count <= kMaxElements, op, ": expected a count of bytes, got ", count);
  const MaskCode code = code_of(op, frequencies);
  const uint8_t* from = bytes_of(op, "coded", coded);
  Tensor out = empty_on({count}, ScalarType::Byte, coded);
  HN_CHECK(decode_mask(code, from, coded.size(0), static_cast<uint8_t*>(out.data_ptr()), count), op,
           ": expected what encode_mask wrote for ", count, " bytes, got other ", coded.size(0), " bytes");
  return out;
}

}  // namespace cpu
}  // namespace hn

STABLE_TORCH_LIBRARY_IMPL(hiddennet, CPU, m) {
  m.impl("encode_mask", TORCH_BOX(&hn::cpu::encode_mask_op));
  m.impl("decode_mask", TORCH_BOX(&hn::cpu::decode_mask_op));
}
#endif
