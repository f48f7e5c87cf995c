// scale_cpu.cpp: the CPU loop of the template op: plain C++ over parallel_for, no torch types.
#include "../../base/parallel.h"
#include "scale.h"

namespace hn {
namespace cpu {

void scale(const ScaleParams& p) {
  parallel_for(0, p.n, 32768, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.out[i] = p.a * p.x[i];
  });
}

}  // namespace cpu
}  // namespace hn
