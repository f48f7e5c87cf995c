// dense_loops.cpp: the loops of the instruction set in use.
#include "dense_args.h"

#define HN_LOOPS "../runtime/conv/dense_loops.h"
#include "../../base/each_lanes.h"

namespace hiddennet::runtime {

const DenseLoops& dense_loops() { return HN_LOOPS_IN_USE(kDenseLoops); }

}  // namespace hiddennet::runtime
