// scale.cuh: the kernel of the template op. A `.cuh` holds kernels: no launch, no torch.
//
// Above a kernel belongs what one thread, warp or block owns, how often each byte is read and
// written, and the invariant that makes it right. Inside belongs only the why that code cannot say.
#pragma once
#include "../../base/launch.cuh"  // the words a kernel may use, so that the SIMT shim can run it
#include "../../base/memory.cuh"  // 16-byte vectors: load_vec, store_vec, is_aligned
#include "scale.h"

namespace hn {
namespace cuda {

constexpr int kScaleThreads = 256;  // a multiple of 32; eight blocks fill a multiprocessor
constexpr int kScaleElems = 4;      // floats a thread owns: 16 bytes, the widest access there is

// One thread owns four consecutive floats; x is read once and out is written once, so the floor is
// 8 bytes an element at the memory's speed. Threads never meet, so any order of blocks and threads
// gives the same bits, and x may be out.
//
// Params travel by value: a `__grid_constant__` struct lies in constant memory, and every thread
// reads it for free.
__global__ void __launch_bounds__(kScaleThreads) scale_kernel(const __grid_constant__ ScaleParams p) {
  // 64-bit, since n may pass 2^31 here. A kernel that counts in int32_t has a host-side check.
  const int64_t first = (int64_t(blockIdx.x) * kScaleThreads + threadIdx.x) * kScaleElems;

  // A vector access needs an address that is a multiple of 16 bytes and four elements that exist. A
  // view into a larger buffer may start anywhere, and only the last thread meets a tail: neither is
  // worth a second kernel.
  if (first + kScaleElems <= p.n && is_aligned<16>(p.x) && is_aligned<16>(p.out)) {
    Vec<float, kScaleElems> v = load_vec<kScaleElems>(p.x + first);
#pragma unroll  // an array stays in registers only if all its indices are known at compile time
    for (int e = 0; e < kScaleElems; ++e) v[e] *= p.a;
    store_vec(p.out + first, v);
    return;
  }
  for (int64_t i = first; i < first + kScaleElems && i < p.n; ++i) p.out[i] = p.a * p.x[i];
}

}  // namespace cuda
}  // namespace hn
