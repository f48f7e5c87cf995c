// simt_memory.h: the host twins of memory.cuh; the contracts are written there.
//
// cp_async copies nothing until the wait that covers it, so a missing or too weak wait reads
// poison.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>

#include "simt_cuda.h"

namespace hn {

namespace detail {
inline void expect_aligned(const char* what, const void* p, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(p) % bytes == 0) return;
  simt::block->fail(std::string(what) + ": expected an address aligned to " + std::to_string(bytes) + " bytes, got " +
                    std::to_string(reinterpret_cast<uintptr_t>(p) % bytes) + " past one");
}
}  // namespace detail

template <int N, class T>
Vec<T, N> load_vec(const T* p) {
  detail::expect_aligned("load_vec", p, sizeof(T) * N);
  Vec<T, N> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <int N, class T>
Vec<T, N> load_vec_readonly(const T* p) {
  return load_vec<N>(p);
}

template <int N, class T>
Vec<T, N> load_vec_streaming(const T* p) {
  return load_vec<N>(p);
}

template <class T, int N>
void store_vec(T* p, const Vec<T, N>& v) {
  detail::expect_aligned("store_vec", p, sizeof v);
  std::memcpy(p, &v, sizeof v);
}

template <class T, int N>
void store_vec_streaming(T* p, const Vec<T, N>& v) {
  store_vec(p, v);
}

template <int kBytes>
void cp_async(void* to, const void* from, bool valid = true) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "cp_async copies 4, 8 or 16 bytes");
  detail::expect_aligned("cp_async to", to, kBytes);
  detail::expect_aligned("cp_async from", from, kBytes);
  if (!simt::block->in_shared(to, kBytes)) simt::block->fail("cp_async: expected a destination in shared memory");
  simt::block->self().copies.back().push_back({to, valid ? from : nullptr, kBytes});
}

inline void cp_async_commit() { simt::block->self().copies.emplace_back(); }

template <int kPending>
void cp_async_wait() {
  auto& groups = simt::block->self().copies;
  while (groups.size() > size_t(kPending) + 1) {
    for (const simt::PendingCopy& c : groups.front()) {
      if (c.from) {
        std::memcpy(c.to, c.from, size_t(c.bytes));
      } else {
        std::memset(c.to, 0, size_t(c.bytes));
      }
    }
    groups.erase(groups.begin());
  }
}

namespace detail {
template <class T>
T polled(const T* p, simt::Site site) {
  simt::block->spin("load_acquire", site);  // whoever writes the word gets a turn
  return *p;
}
}  // namespace detail

inline uint32_t load_acquire(const uint32_t* p, simt::Site site = simt::Site::here()) {
  return detail::polled(p, site);
}
inline uint64_t load_acquire(const uint64_t* p, simt::Site site = simt::Site::here()) {
  return detail::polled(p, site);
}
inline void store_release(uint32_t* p, uint32_t v) { *p = v; }
inline void store_release(uint64_t* p, uint64_t v) { *p = v; }
inline uint32_t atomic_add_release(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }
inline uint32_t atomic_add_acq_rel(uint32_t* p, uint32_t v) { return atomicAdd(p, v); }

}  // namespace hn
