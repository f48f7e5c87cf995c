// launch.cuh: start a kernel, on the GPU under nvcc and in the SIMT shim under g++. Kernels include this, never simt*.h.
//
// The same source is compiled by nvcc (a `.cu` file) and by g++ (the tests include the `.cu`, see simt.h). A kernel is
// plain CUDA C++ with these words of ours; anything not listed is not understood by the shim and does not compile there:
//
//   hn::launch(kernel, grid, block, smem_bytes, stream, args...) -> int   instead of <<<>>>; 0, a cudaError_t or kRefused
//   HN_SHARED(T, name, count)       static shared memory: `T* name`, uninitialised; instead of `__shared__`
//   HN_DYNAMIC_SHARED(T, name)      dynamic shared memory: `T* name`, 128-byte aligned; smem_bytes of launch()
//   hn::fill_zero(ptr, bytes, stream) -> int, hn::multiprocessors(&count) -> int
//
//   __global__ __device__ __host__ __forceinline__ __launch_bounds__ __restrict__ __align__ __grid_constant__
//   threadIdx blockIdx blockDim gridDim warpSize dim3
//   __syncthreads{,_or,_and,_count}  __syncwarp  __shfl{,_xor,_up,_down}_sync
//   __ballot_sync __any_sync __all_sync __match_any_sync  __reduce_{add,min,max,and,or,xor}_sync
//   __popc __ffs __clz __brev (and ...ll)  __umulhi  __funnelshift_{l,r}  __byte_perm
//   atomic{Add,Sub,Max,Min,And,Or,Xor,Exch,CAS}  __threadfence{,_block}  __nanosleep  __ldg  __trap
//   __float_as_uint __uint_as_float (int, double too)  __f{mul,add,sub,div,maf,sqrt}_rn  __expf __logf
//   {int,uint,float}{2,4} make_*  __half __nv_bfloat16 and their _rn conversions
//   memory.cuh: vectors, cp_async, load_acquire, atomic_add_release.  mma.cuh: tensor-core tiles.  collectives.cuh.
//
// Rules that keep both machines honest:
// - A `*_sync` mask names only lanes that reach the call: whole warps leave a kernel together, and a block is a multiple
//   of 32 threads wherever a full mask is used. All threads of a block meet at the same __syncthreads in the source.
// - Shared memory holds garbage at the start; every block in any order must work; nothing waits for a block that need
//   not have started (take a ticket with atomicAdd). A loop that waits for others calls load_acquire or __nanosleep.
// - Vector access goes through memory.cuh, which asserts alignment. Inline PTX lives in memory.cuh and mma.cuh alone,
//   each with its host twin.
// - A grid of 0 blocks is an error on both: return before launching when there is nothing to do.
// - A kernel has at most 16 KB of static shared memory if it also takes dynamic; launch() opts in to large dynamic
//   shared memory (up to 227 KB) by itself.
#pragma once
#include <cstddef>
#include <cstdint>

#include "launch_error.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "simt_cuda.h"
#endif

namespace hn {

constexpr size_t kMaxDynamicShared = 227 * 1024;  // bytes a block may ask for on sm_90 and sm_100; sm_80: 163 KB

#if defined(__CUDACC__)

#define HN_SHARED(T, name, ...)               \
  __shared__ T name##_in_shared[__VA_ARGS__]; \
  T* const name = name##_in_shared

#define HN_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char hn_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(hn_dynamic_shared)

// An error is returned, and taken back from the runtime: it would else be the next CUDA call's of whoever comes after.
inline int reported(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return int(error);
}

template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem_bytes, void* stream, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument for each kernel parameter");
  cudaError_t error = cudaSuccess;
  if (smem_bytes > 32 * 1024) {
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 int(smem_bytes));
  }
  if (error == cudaSuccess) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
  }
  return reported(error);
}

inline int fill_zero(void* ptr, size_t bytes, void* stream) {
  return reported(cudaMemsetAsync(ptr, 0, bytes, static_cast<cudaStream_t>(stream)));
}

// Multiprocessors of the current device.
inline int multiprocessors(int* count) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return reported(error != cudaSuccess ? error : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device));
}

#else

#define HN_SHARED(T, name, ...)           \
  static const char name##_in_shared = 0; \
  T* const name = simt::shared_array<T>(&name##_in_shared, __VA_ARGS__)

#define HN_DYNAMIC_SHARED(T, name) T* const name = simt::dynamic_shared<T>()

template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem_bytes, void* /*stream*/, A&&... args) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: one argument for each kernel parameter");
  return simt::launch(kernel, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, smem_bytes,
                      static_cast<P>(args)...);
}

inline int fill_zero(void* ptr, size_t bytes, void* /*stream*/) {
  if (bytes) std::memset(ptr, 0, bytes);
  return 0;
}

inline int multiprocessors(int* count) {
  *count = simt::settings().multiprocessors;
  return 0;
}

#endif

}  // namespace hn
