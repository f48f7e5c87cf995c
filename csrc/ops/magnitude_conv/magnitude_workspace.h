// magnitude_workspace.h: what the loops of magnitude_conv share: a thread's memory, and how work is cut.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "magnitude_patches.h"

namespace hn {
namespace cpu {

constexpr int64_t kMultiplyGrain = int64_t(1) << 17;  // products that are worth a thread, about

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

struct Workspace {  // a thread's, kept from call to call
  Aligned<double> patches, weights, sums, image;
  Aligned<float> columns;
};

inline Workspace& workspace() {
  static thread_local Workspace w;
  return w;
}

inline int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline int64_t grain(int64_t work) { return std::max<int64_t>(1, kMultiplyGrain / std::max<int64_t>(work, 1)); }

inline std::vector<int64_t> row_offsets(const Frame& f) {
  std::vector<int64_t> offsets(size_t(f.rows()));
  for (int64_t k = 0; k < f.rows(); ++k) offsets[size_t(k)] = f.of_row(k);
  return offsets;
}

}  // namespace cpu
}  // namespace hn
