// aligned.h: memory of a thread's own for vector kernels, on 64-byte lines, kept from call to call.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace hn {
namespace cpu {

template <class T>
class Aligned {  // grows, holds garbage
 public:
  T* at_least(int64_t n) {
    if (n > n_) {
      n_ = 0;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, (size_t(n) * sizeof(T) + 63) / 64 * 64)));
      if (memory_ == nullptr) throw std::bad_alloc();
      n_ = n;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t n_ = 0;
};

}  // namespace cpu
}  // namespace hn
