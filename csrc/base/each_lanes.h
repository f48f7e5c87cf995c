// each_lanes.h: includes a header of loops, HN_LOOPS (its path from here), once for each kind of lanes of float_lanes.h, as
// HN_LANES with the functions' target HN_LANES_TARGET; and HN_LOOPS_IN_USE(name), that of the instruction set in use.
// No guard: a file includes it for each header of loops that it has.
#include "isa.h"

#define HN_LANES lanes_any
#define HN_LANES_TARGET
#include HN_LOOPS
#undef HN_LANES
#undef HN_LANES_TARGET

#if defined(HN_X86)
#define HN_LANES lanes_avx2
#define HN_LANES_TARGET HN_TARGET_FMA
#include HN_LOOPS
#undef HN_LANES
#undef HN_LANES_TARGET

#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 warns of its own intrinsics' undefined registers
#endif
#define HN_LANES lanes_avx512
#define HN_LANES_TARGET HN_TARGET_AVX512
#include HN_LOOPS
#undef HN_LANES
#undef HN_LANES_TARGET
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
#undef HN_LOOPS

#undef HN_LOOPS_IN_USE
#if defined(HN_X86)
#define HN_LOOPS_IN_USE(name)                           \
  (::hn::isa() != ::hn::Isa::kAvx2 ? lanes_any::name    \
   : ::hn::wide()                  ? lanes_avx512::name \
   : __builtin_cpu_supports("fma") ? lanes_avx2::name   \
                                   : lanes_any::name)
#else
#define HN_LOOPS_IN_USE(name) lanes_any::name
#endif
