// simt_cuda.h: the words of CUDA C++ that kernels use, on top of simt.h. Included by launch.cuh
// under g++ only.
//
// One OS thread runs all fibers, and a fiber is left only where it waits: plain loads and stores
// are atomic here.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt.h"
#include "simt_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

#define threadIdx (simt::block->self().index)
#define blockIdx (simt::block->index)
#define blockDim (simt::block->shape)
#define gridDim (simt::block->grid)
constexpr int warpSize = simt::kWarp;

// --- Barriers.

inline void __syncthreads(simt::Site site = simt::Site::here()) { simt::block->barrier("__syncthreads", false, site); }
inline int __syncthreads_count(int vote, simt::Site site = simt::Site::here()) {
  return simt::block->barrier("__syncthreads_count", vote != 0, site);
}
inline int __syncthreads_or(int vote, simt::Site site = simt::Site::here()) {
  return simt::block->barrier("__syncthreads_or", vote != 0, site) != 0;
}
inline int __syncthreads_and(int vote, simt::Site site = simt::Site::here()) {
  return simt::block->barrier("__syncthreads_and", vote == 0, site) == 0;
}
inline void __syncwarp(uint32_t mask = 0xffffffffu, simt::Site site = simt::Site::here()) {
  simt::block->meet(mask, "__syncwarp", nullptr, 0, site);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned, simt::Site site = simt::Site::here()) { simt::block->spin("__nanosleep", site); }
[[noreturn]] inline void __trap() { simt::block->fail("__trap"); }

// --- Warps.

namespace simt {

template <class T>
T brought(const Meeting& m, int lane) {
  T v;
  std::memcpy(&v, m.brought[lane], sizeof v);
  return v;
}

template <class T>
const Meeting& meet(uint32_t mask, const char* op, T v, Site site) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= kDepositBytes, "a lane brings at most 32 bytes");
  return block->meet(mask, op, &v, sizeof v, site);
}

// The value of lane `from`, a lane of the caller's segment; reading a lane that is not in the mask
// is undefined in CUDA.
template <class T>
T shuffle(uint32_t mask, const char* op, T v, int from, Site site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  const Meeting& m = meet(mask, op, v, site);
  if (!(mask >> from & 1u)) {
    block->fail(std::string(op) + ": reads lane " + std::to_string(from) + ", which is not in the mask");
  }
  return brought<T>(m, from);
}

template <class T, class F>
T reduce(uint32_t mask, const char* op, T v, F f, Site site) {
  static_assert(sizeof(T) == 4 && std::is_integral<T>::value, "__reduce_*_sync takes 32-bit integers");
  const Meeting& m = meet(mask, op, v, site);
  T r{};
  bool first = true;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    r = first ? brought<T>(m, lane) : f(r, brought<T>(m, lane));
    first = false;
  }
  return r;
}

inline int lane() { return block->self().lane; }

}  // namespace simt

template <class T>
T __shfl_sync(uint32_t mask, T v, int source, int width = 32, simt::Site site = simt::Site::here()) {
  const int base = simt::lane() & ~(width - 1);
  return simt::shuffle(mask, "__shfl_sync", v, base + (source & (width - 1)), site);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T v, int bits, int width = 32, simt::Site site = simt::Site::here()) {
  const int lane = simt::lane(), to = lane ^ bits;
  return simt::shuffle(mask, "__shfl_xor_sync", v, to < (lane & ~(width - 1)) + width ? to : lane, site);
}
template <class T>
T __shfl_up_sync(uint32_t mask, T v, unsigned delta, int width = 32, simt::Site site = simt::Site::here()) {
  const int lane = simt::lane();
  return simt::shuffle(mask, "__shfl_up_sync", v, unsigned(lane & (width - 1)) >= delta ? lane - int(delta) : lane,
                       site);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T v, unsigned delta, int width = 32, simt::Site site = simt::Site::here()) {
  const int lane = simt::lane();
  const bool inside = unsigned(lane & (width - 1)) + delta < unsigned(width);
  return simt::shuffle(mask, "__shfl_down_sync", v, inside ? lane + int(delta) : lane, site);
}
template <class T>
uint32_t __match_any_sync(uint32_t mask, T v, simt::Site site = simt::Site::here()) {
  const simt::Meeting& m = simt::meet(mask, "__match_any_sync", v, site);
  uint32_t same = 0;
  for (int lane = 0; lane < simt::kWarp; ++lane) {
    if ((mask >> lane & 1u) && simt::brought<T>(m, lane) == v) same |= 1u << lane;
  }
  return same;
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  const simt::Meeting& m = simt::meet(mask, "__ballot_sync", predicate, site);
  uint32_t votes = 0;
  for (int lane = 0; lane < simt::kWarp; ++lane) {
    if ((mask >> lane & 1u) && simt::brought<int>(m, lane) != 0) votes |= 1u << lane;
  }
  return votes;
}
inline int __any_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return __ballot_sync(mask, predicate, site) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, simt::Site site = simt::Site::here()) {
  return __ballot_sync(mask, predicate, site) == mask;
}
template <class T>
T __reduce_add_sync(uint32_t mask, T v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_add_sync", v, [](T a, T b) { return T(uint32_t(a) + uint32_t(b)); }, site);
}
template <class T>
T __reduce_min_sync(uint32_t mask, T v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_min_sync", v, [](T a, T b) { return b < a ? b : a; }, site);
}
template <class T>
T __reduce_max_sync(uint32_t mask, T v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_max_sync", v, [](T a, T b) { return b > a ? b : a; }, site);
}
inline uint32_t __reduce_and_sync(uint32_t mask, uint32_t v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_and_sync", v, [](uint32_t a, uint32_t b) { return a & b; }, site);
}
inline uint32_t __reduce_or_sync(uint32_t mask, uint32_t v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_or_sync", v, [](uint32_t a, uint32_t b) { return a | b; }, site);
}
inline uint32_t __reduce_xor_sync(uint32_t mask, uint32_t v, simt::Site site = simt::Site::here()) {
  return simt::reduce(mask, "__reduce_xor_sync", v, [](uint32_t a, uint32_t b) { return a ^ b; }, site);
}

#include "simt_scalar.h"
