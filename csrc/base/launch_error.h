// launch_error.h: what a launch function returns: 0, a cudaError_t, or a refusal of ours; on a GPU also in words.
#pragma once

#if defined(HN_CUDA)
#include <cuda_runtime_api.h>

#include <string>
#endif

namespace hn {

constexpr int kRefused = -1;  // the kernel does not take these sizes; CUDA's own numbers are positive

#if defined(HN_CUDA)
inline std::string launch_error(int error) {
  if (error == kRefused) return "refused: the kernel does not take tensors of these sizes";
  const auto e = static_cast<cudaError_t>(error);
  std::string words = std::string("failed: ") + cudaGetErrorName(e) + ", " + cudaGetErrorString(e);
  if (e == cudaErrorNoKernelImageForDevice) {
    words += "; the kernels need compute capability 8.0 or newer, and a build for it (TORCH_CUDA_ARCH_LIST)";
  }
  return words;
}
#endif

}  // namespace hn
