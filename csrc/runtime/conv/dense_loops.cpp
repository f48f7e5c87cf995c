// dense_loops.cpp: the loops of the instruction set in use.
#include "dense_args.h"

#define HN_LANES lanes_any
#define HN_LANES_TARGET
#include "dense_loops.h"
#undef HN_LANES
#undef HN_LANES_TARGET

#if defined(HN_X86)
#define HN_LANES lanes_avx2
#define HN_LANES_TARGET HN_TARGET_FMA
#include "dense_loops.h"
#undef HN_LANES
#undef HN_LANES_TARGET

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif
#define HN_LANES lanes_avx512
#define HN_LANES_TARGET HN_TARGET_AVX512
#include "dense_loops.h"
#undef HN_LANES
#undef HN_LANES_TARGET
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

namespace hiddennet::runtime {

const DenseLoops& dense_loops() {
#if defined(HN_X86)
  static const bool fused = __builtin_cpu_supports("fma");
  if (hn::isa() == hn::Isa::kAvx2 && hn::wide()) return lanes_avx512::kDenseLoops;
  if (hn::isa() == hn::Isa::kAvx2 && fused) return lanes_avx2::kDenseLoops;
#endif
  return lanes_any::kDenseLoops;
}

}  // namespace hiddennet::runtime
