// sparse_loops.cpp: the loops of the instruction set in use.
#include "sparse_args.h"

#define HN_LOOPS "../runtime/conv/sparse_loops.h"
#include "../../base/each_lanes.h"

namespace hiddennet::runtime {

const SparseLoops& sparse_loops() { return HN_LOOPS_IN_USE(kSparseLoops); }

}  // namespace hiddennet::runtime
