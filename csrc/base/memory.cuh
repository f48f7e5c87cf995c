// memory.cuh: move more than a word at a time: aligned vectors, cp.async, and acquire/release
// words. Not for tensor-core tiles (mma.cuh) nor for anything that computes.
#pragma once
#include <cstdint>

#include "launch.cuh"

namespace hn {

// N elements that travel as one access: at most 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  static_assert(sizeof(T) * N <= 16 && (N & (N - 1)) == 0, "Vec: a power of two of elements, 16 bytes at most");
  T v[N];

  __host__ __device__ T& operator[](int i) { return v[i]; }
  __host__ __device__ const T& operator[](int i) const { return v[i]; }
};

template <int kBytes>
__host__ __device__ __forceinline__ bool is_aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % kBytes == 0;
}

#if defined(__CUDACC__)

namespace detail {
template <int kBytes>
struct Word;
template <>
struct Word<1> {
  using type = unsigned char;
};
template <>
struct Word<2> {
  using type = unsigned short;
};
template <>
struct Word<4> {
  using type = unsigned;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<16> {
  using type = uint4;
};

template <class V>
using word_of = typename Word<sizeof(V)>::type;

template <class V>
__device__ __forceinline__ V from_word(word_of<V> w) {
  V v;
  memcpy(&v, &w, sizeof v);
  return v;
}
template <class V>
__device__ __forceinline__ word_of<V> to_word(const V& v) {
  word_of<V> w;
  memcpy(&w, &v, sizeof w);
  return w;
}
}  // namespace detail

// Elements [0, N) at p; p is aligned to the whole vector, in global or shared memory.
template <int N, class T>
__device__ __forceinline__ Vec<T, N> load_vec(const T* p) {
  using V = Vec<T, N>;
  return detail::from_word<V>(*reinterpret_cast<const detail::word_of<V>*>(p));
}

// The same for global memory that no thread writes during the kernel.
template <int N, class T>
__device__ __forceinline__ Vec<T, N> load_vec_readonly(const T* p) {
  using V = Vec<T, N>;
  return detail::from_word<V>(__ldg(reinterpret_cast<const detail::word_of<V>*>(p)));
}

// The same for global memory that is read once: it does not push other lines out of the cache.
template <int N, class T>
__device__ __forceinline__ Vec<T, N> load_vec_streaming(const T* p) {
  using V = Vec<T, N>;
  return detail::from_word<V>(__ldcs(reinterpret_cast<const detail::word_of<V>*>(p)));
}

template <class T, int N>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& v) {
  *reinterpret_cast<detail::word_of<Vec<T, N>>*>(p) = detail::to_word(v);
}

template <class T, int N>
__device__ __forceinline__ void store_vec_streaming(T* p, const Vec<T, N>& v) {
  __stcs(reinterpret_cast<detail::word_of<Vec<T, N>>*>(p), detail::to_word(v));
}

// Starts copying kBytes (4, 8 or 16) from global to shared memory, both aligned to kBytes. With
// `valid` false the destination is filled with zeros and `from` is not read, but it must still be
// an address inside the allocation.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp_async copies 4, 8 or 16 bytes");
  const uint32_t shared = uint32_t(__cvta_generic_to_shared(to));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(from), "r"(bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(from), "n"(kBytes), "r"(bytes)
                 : "memory");
  }
}

// Closes this thread's group of copies.
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kPending of this thread's groups are in flight. Other threads see the data
// after a barrier.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// A word that another block publishes with a release.
__device__ __forceinline__ uint32_t load_acquire(const uint32_t* p) {
  uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
__device__ __forceinline__ uint64_t load_acquire(const uint64_t* p) {
  uint64_t v;
  asm volatile("ld.acquire.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
  return v;
}

// Publishes: whoever acquires the new value sees everything this thread wrote before.
__device__ __forceinline__ void store_release(uint32_t* p, uint32_t v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
__device__ __forceinline__ void store_release(uint64_t* p, uint64_t v) {
  asm volatile("st.release.gpu.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}

// Publishes and adds; returns the old value.
__device__ __forceinline__ uint32_t atomic_add_release(uint32_t* p, uint32_t v) {
  uint32_t old;
  asm volatile("atom.add.release.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
  return old;
}

// Publishes, adds, and sees what those who added before published: the ticket of "the last block
// finishes the job".
__device__ __forceinline__ uint32_t atomic_add_acq_rel(uint32_t* p, uint32_t v) {
  uint32_t old;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(v) : "memory");
  return old;
}

#endif

}  // namespace hn

#if !defined(__CUDACC__)
#include "simt_memory.h"
#endif
