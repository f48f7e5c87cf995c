// simt_scalar.h: what a CUDA thread does on its own: atomics, bit twiddling, rounded arithmetic.
// For simt_cuda.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt.h"

namespace simt {

template <class T>
struct Same {
  using type = T;
};
template <class T>
using Value = typename Same<T>::type;  // not deduced: atomicAdd(uint32_t*, 1) is fine

template <class T, class F>
T exchange(T* p, F f) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics take 32- and 64-bit words");
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) block->fail("atomic: expected an aligned address");
  const T old = *p;
  *p = f(old);
  return old;
}

template <class To, class From>
To bit_cast(From v) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast keeps the size");
  To r;
  std::memcpy(&r, &v, sizeof r);
  return r;
}

// Integers wrap, as on the GPU.
template <class T>
T wrapping_add(T a, T b) {
  if constexpr (std::is_integral<T>::value) {
    using U = std::make_unsigned_t<T>;
    return T(U(a) + U(b));
  } else {
    return a + b;
  }
}

}  // namespace simt

template <class T>
T atomicAdd(T* p, simt::Value<T> v) {
  return simt::exchange(p, [=](T old) { return simt::wrapping_add(old, v); });
}
template <class T>
T atomicSub(T* p, simt::Value<T> v) {
  static_assert(std::is_integral<T>::value, "atomicSub takes integers");
  return simt::exchange(p, [=](T old) { return T(std::make_unsigned_t<T>(old) - std::make_unsigned_t<T>(v)); });
}
template <class T>
T atomicMax(T* p, simt::Value<T> v) {
  static_assert(std::is_integral<T>::value, "atomicMax takes integers");
  return simt::exchange(p, [=](T old) { return v > old ? v : old; });
}
template <class T>
T atomicMin(T* p, simt::Value<T> v) {
  static_assert(std::is_integral<T>::value, "atomicMin takes integers");
  return simt::exchange(p, [=](T old) { return v < old ? v : old; });
}
template <class T>
T atomicAnd(T* p, simt::Value<T> v) {
  return simt::exchange(p, [=](T old) { return T(old & v); });
}
template <class T>
T atomicOr(T* p, simt::Value<T> v) {
  return simt::exchange(p, [=](T old) { return T(old | v); });
}
template <class T>
T atomicXor(T* p, simt::Value<T> v) {
  return simt::exchange(p, [=](T old) { return T(old ^ v); });
}
template <class T>
T atomicExch(T* p, simt::Value<T> v) {
  return simt::exchange(p, [=](T) { return v; });
}
template <class T>
T atomicCAS(T* p, simt::Value<T> expected, simt::Value<T> v) {
  static_assert(std::is_integral<T>::value, "atomicCAS compares bits: integers only");
  return simt::exchange(p, [=](T old) { return old == expected ? v : old; });
}
template <class T>
T __ldg(const T* p) {
  if (reinterpret_cast<uintptr_t>(p) % alignof(T)) simt::block->fail("__ldg: expected an aligned address");
  return *p;
}

inline int __popc(uint32_t x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(uint32_t(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline uint32_t __brev(uint32_t x) {
  uint32_t r = 0;
  for (int i = 0; i < 32; ++i) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(uint32_t(x))) << 32 | __brev(uint32_t(x >> 32));
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t shift) {
  return uint32_t((uint64_t(high) << 32 | low) << (shift & 31u) >> 32);
}
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return uint32_t((uint64_t(high) << 32 | low) >> (shift & 31u));
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t(b) << 32 | a;
  uint32_t r = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = selector >> (4 * i), byte = uint32_t(bytes >> (8 * (s & 7u))) & 0xffu;
    r |= (s & 8u ? (byte & 0x80u ? 0xffu : 0u) : byte) << (8 * i);
  }
  return r;
}

inline uint32_t __float_as_uint(float x) { return simt::bit_cast<uint32_t>(x); }
inline int __float_as_int(float x) { return simt::bit_cast<int>(x); }
inline float __uint_as_float(uint32_t x) { return simt::bit_cast<float>(x); }
inline float __int_as_float(int x) { return simt::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bit_cast<double>(x); }

// The tests compile with -ffp-contract=off, so each of these rounds once.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }

// CUDA has these in the global namespace. Both arguments must agree in type: mixed signs are a trap
// on both machines.
template <class T>
constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
constexpr T max(T a, T b) {
  return a < b ? b : a;
}
