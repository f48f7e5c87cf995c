// count_flags.cuh: the kernel that counts the ones of a network's flag planes.
#pragma once
#include <algorithm>

#include "../../base/collectives.cuh"
#include "../../base/memory.cuh"
#include "strike_out.h"

namespace hn {
namespace cuda {

constexpr int kCountThreads = 1024;
constexpr int kMaxPlanes = 256;  // of one launch

struct PlaneTable {
  FlagPlane plane[kMaxPlanes];
  int64_t* counts;
};

// One block owns one plane and reads it once, 16 bytes a thread at a time where it can.
template <int kThreads>
__global__ void __launch_bounds__(kThreads) count_flags_kernel(const __grid_constant__ PlaneTable t) {
  HN_SHARED(uint32_t, scratch, kBlockScratch<kThreads>);
  const FlagPlane plane = t.plane[blockIdx.x];
  const int64_t vectors = is_aligned<16>(plane.bits) ? plane.bytes / 16 : 0;
  uint32_t ones = 0;
#pragma unroll 4
  for (int64_t i = int64_t(threadIdx.x); i < vectors; i += kThreads) {
    const Vec<uint32_t, 4> v = load_vec<4>(reinterpret_cast<const uint32_t*>(plane.bits) + 4 * i);
    ones += uint32_t(__popc(v[0]) + __popc(v[1]) + __popc(v[2]) + __popc(v[3]));
  }
  for (int64_t i = 16 * vectors + int64_t(threadIdx.x); i < plane.bytes; i += kThreads) {
    ones += uint32_t(__popc(plane.bits[i]));
  }
  ones = block_sum<kThreads>(ones, scratch);
  if (threadIdx.x == 0) t.counts[blockIdx.x] = int64_t(ones);
}

template <int kThreads>
int count_flags_in_blocks(const CountFlagsParams& p, void* stream) {
  int error = 0;
  for (int32_t first = 0; first < p.num_planes && error == 0; first += kMaxPlanes) {
    const int32_t planes = std::min(kMaxPlanes, p.num_planes - first);
    PlaneTable t = {};
    std::copy(p.planes + first, p.planes + first + planes, t.plane);
    t.counts = p.counts + first;
    error = launch(&count_flags_kernel<kThreads>, dim3(unsigned(planes)), kThreads, 0, stream, t);
  }
  return error;
}

}  // namespace cuda
}  // namespace hn
