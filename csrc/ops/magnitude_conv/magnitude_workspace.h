// magnitude_workspace.h: what the loops of magnitude_conv share: a thread's memory, and how work is cut.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../base/aligned.h"
#include "magnitude_patches.h"

namespace hn {
namespace cpu {

constexpr int64_t kMultiplyGrain = int64_t(1) << 17;  // products that are worth a thread, about

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
