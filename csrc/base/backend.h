// backend.h: the device an op file is being compiled for. Each *_op.cpp is built once without HN_CUDA and once with it.
#pragma once
#include "launch_error.h"
#include "nvtx.h"
#include "tensor.h"

#if defined(HN_CUDA)
#define HN_BACKEND cuda
#define HN_KEY CUDA
extern "C" AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#else
#define HN_BACKEND cpu
#define HN_KEY CPU
#endif

namespace hn {
namespace HN_BACKEND {

#if defined(HN_CUDA)

// Makes the tensor's device current, and runs a launch on its current stream.
class Guard {
 public:
  explicit Guard(const Tensor& t) : guard_(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream_));
  }

  template <class P>
  void run(const char* op, int (*launch)(const P&, void*), const P& params) const {
    const int error = launch(params, stream_);
    HN_CHECK(error == 0, op, ": the CUDA launch ", launch_error(error));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

#else

class Guard {
 public:
  explicit Guard(const Tensor&) {}

  template <class P>
  void run(const char*, void (*launch)(const P&), const P& params) const {
    launch(params);
  }
};

#endif

}  // namespace HN_BACKEND
}  // namespace hn
