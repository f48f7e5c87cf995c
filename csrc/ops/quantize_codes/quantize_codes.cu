// quantize_codes.cu: launches of ranges, codes and the threshold.
#include "quantize_codes.cuh"

namespace hn {
namespace cuda {
namespace {

using CodesKernel = void (*)(QuantizeCodesParams);

template <class T>
CodesKernel kernel_of(bool turned) {
  return turned ? &turned_codes_kernel<T> : &quantize_codes_kernel<T>;
}

CodesKernel kernel_of(CodeType type, bool turned) {
  switch (type) {
    case CodeType::kUint8: return kernel_of<uint8_t>(turned);
    case CodeType::kInt8: return kernel_of<int8_t>(turned);
    case CodeType::kInt16: return kernel_of<int16_t>(turned);
    default: return kernel_of<int32_t>(turned);
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
  const bool turned = p.pixels > 0;
  unsigned blocks = blocks_for(p.n > 0 ? p.n : 1, kCodeThreads * kCodeElems);  // delta is written for no code too
  if (turned) {
    blocks = unsigned(p.n / (p.channels * p.pixels)) * blocks_for(p.pixels, kTilePixels) *
             blocks_for(p.channels, kTileChannels);
  }
  return launch(kernel_of(p.type, turned), dim3(blocks), kCodeThreads, 0, stream, p);
}

int threshold_gradient(const ThresholdParams& p, void* stream) {
  if (p.n == 0) return 0;
  return launch(&threshold_kernel, dim3(blocks_for(p.n, kCodeThreads * 4)), kCodeThreads, 0, stream, p);
}

}  // namespace cuda
}  // namespace hn
