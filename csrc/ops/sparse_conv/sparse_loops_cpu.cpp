// sparse_loops_cpu.cpp: the loops of the instruction set in use.
#include "sparse_append.h"
#include "sparse_args.h"

#define HN_LOOPS "../ops/sparse_conv/sparse_loops.h"
#include "../../base/each_lanes.h"

namespace hn {
namespace cpu {

const SparseLoops& sparse_loops() { return HN_LOOPS_IN_USE(kSparseLoops); }

}  // namespace cpu
}  // namespace hn
