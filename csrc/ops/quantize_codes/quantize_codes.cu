// quantize_codes.cu: launches of ranges, codes and the threshold.
#include "quantize_codes.cuh"

namespace hn {
namespace cuda {
namespace {

using CodesKernel = void (*)(QuantizeCodesParams);

CodesKernel kernel_of(CodeType type) {
  switch (type) {
    case CodeType::kUint8: return &quantize_codes_kernel<uint8_t>;
    case CodeType::kInt8: return &quantize_codes_kernel<int8_t>;
    case CodeType::kInt16: return &quantize_codes_kernel<int16_t>;
    default: return &quantize_codes_kernel<int32_t>;
  }
}

unsigned blocks_for(int64_t n, int64_t each) { return unsigned((n + each - 1) / each); }

}  // namespace

int code_range(const CodeRangeParams& p, void* stream) {
  if (p.size == 0) return fill_zero(p.maximum, sizeof(float), stream);
  const int error = fill_zero(p.work, size_t(p.samples + 1) * sizeof(uint32_t), stream);
  if (error != 0) return error;
  const int64_t parts = (p.size + kRangeBlock - 1) / kRangeBlock;
  return launch(&code_range_kernel, dim3(unsigned(p.samples * parts)), kCodeThreads, 0, stream, p);
}

int quantize_codes(const QuantizeCodesParams& p, void* stream) {
  const unsigned blocks = blocks_for(p.n > 0 ? p.n : 1, kCodeThreads * kCodeElems);  // delta is written for no code too
  return launch(kernel_of(p.type), dim3(blocks), kCodeThreads, 0, stream, p);
}

int threshold_gradient(const ThresholdParams& p, void* stream) {
  if (p.n == 0) return 0;
  return launch(&threshold_kernel, dim3(blocks_for(p.n, kCodeThreads * 4)), kCodeThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
