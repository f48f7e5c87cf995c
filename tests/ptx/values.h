// values.h: arithmetic: a table of instructions and of what they make of their operands a, b, c and d.
#pragma once
#include <bit>
#include <cfenv>
#include <cmath>
#include <type_traits>

#include "base/dtype.h"
#include "machine.h"

namespace ptx {

// A register as an int64_t, uint64_t, float or double; and back. A NaN that is made is always the same, as on the
// hardware.
template <class T>
T read(Type type, uint64_t bits) {
  if constexpr (std::is_same_v<T, float>) return std::bit_cast<float>(uint32_t(bits));
  if constexpr (std::is_same_v<T, double>) return std::bit_cast<double>(bits);
  if constexpr (std::is_integral_v<T>) return T(bits << (64 - type.bits)) >> (64 - type.bits);
}
template <class T>
uint64_t written(Type type, T v) {
  if constexpr (std::is_same_v<T, float>) return v != v ? 0x7fffffff : std::bit_cast<uint32_t>(v);
  if constexpr (std::is_same_v<T, double>) return std::bit_cast<uint64_t>(v);
  if constexpr (!std::is_floating_point_v<T>) return uint64_t(v) << (64 - type.bits) >> (64 - type.bits);
}

using Value = uint64_t (*)(const Instruction&, const uint64_t (&x)[4]);

template <class F, class T>
uint64_t value(const Instruction& i, const uint64_t (&x)[4]) {
  const T a = read<T>(i.type, x[0]), b = read<T>(i.type, x[1]), c = read<T>(i.type, x[2]), d = read<T>(i.type, x[3]);
  return written(i.to, F()(a, b, c, d, i.type.bits));
}
template <class F>
Value of_integers(Type type, F) {
  return type.kind == 's' ? &value<F, int64_t> : &value<F, uint64_t>;
}
template <class F>
Value of_floats(Type type, F) {
  return type.bits == 64 ? &value<F, double> : &value<F, float>;
}
template <class F>
Value of_numbers(Type type, F f) {
  return type.kind == 'f' ? of_floats(type, f) : of_integers(type, f);
}

template <class T>
T not_zero(T divisor) {
  if (std::is_integral_v<T> && divisor == 0) throw Error("division by zero");
  return divisor;
}

inline float fused_down(float a, float b, float c) {
  std::fesetround(FE_DOWNWARD);
  volatile float x = a, y = b, z = c;
  volatile float r = std::fma(x, y, z);
  std::fesetround(FE_TONEAREST);
  return r;
}

inline uint64_t reversed(uint64_t a, int bits) {
  uint64_t r = 0;
  for (int b = 0; b < bits; ++b) r |= (a >> b & 1) << (bits - 1 - b);
  return r;
}

inline uint64_t permuted(uint64_t bytes, uint32_t select) {
  uint64_t r = 0;
  for (int n = 0; n < 4; ++n) {
    const uint32_t s = select >> (4 * n), byte = uint32_t(bytes >> (8 * (s & 7))) & 255;
    r |= uint64_t(s & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * n);
  }
  return r;
}

inline uint64_t inserted(uint64_t a, uint64_t into, uint64_t at, uint64_t length) {
  const uint64_t ones = length >= 64 ? ~uint64_t(0) : (uint64_t(1) << length) - 1, mask = at < 64 ? ones << at : 0;
  return (a << (at & 63) & mask) | (into & ~mask);
}

inline Value value_of(const std::string& name, Type type) {
#define HN_ROW(types, called, result)                                                                     \
  if (name == called) {                                                                                   \
    return of_##types(type, []([[maybe_unused]] auto a, [[maybe_unused]] auto b, [[maybe_unused]] auto c, \
                               [[maybe_unused]] auto d, [[maybe_unused]] int bits) { return result; });   \
  }
  HN_ROW(integers, "mov", a)
  HN_ROW(integers, "cvta.to.global", a)
  HN_ROW(integers, "cvta.shared", a + kSharedWindow)
  HN_ROW(integers, "cvta.to.shared", a - kSharedWindow)
  HN_ROW(integers, "selp", c ? a : b)
  HN_ROW(numbers, "add", a + b)
  HN_ROW(numbers, "sub", a - b)
  HN_ROW(numbers, "mul", a * b)
  HN_ROW(integers, "mul.lo", a * b)
  HN_ROW(integers, "mul.wide", a * b)
  HN_ROW(integers, "mul.hi", __int128(a) * b >> bits)
  HN_ROW(integers, "mad.lo", a * b + c)
  HN_ROW(floats, "fma", std::fma(a, b, c))
  HN_ROW(floats, "fma.rm", fused_down(float(a), float(b), float(c)))
  HN_ROW(numbers, "div", a / not_zero(b))
  HN_ROW(integers, "rem", a % not_zero(b))
  HN_ROW(numbers, "neg", -a)
  HN_ROW(numbers, "min", b != b || a < b ? a : b)
  HN_ROW(numbers, "max", b != b || a > b ? a : b)
  HN_ROW(floats, "sqrt", std::sqrt(a))
  HN_ROW(floats, "rcp", 1 / a)
  HN_ROW(floats, "ex2", std::fpclassify(float(std::exp2(double(a)))) == FP_SUBNORMAL ? 0 : float(std::exp2(double(a))))
  HN_ROW(integers, "and", a & b)
  HN_ROW(integers, "or", a | b)
  HN_ROW(integers, "xor", a ^ b)
  HN_ROW(integers, "not", ~a)
  HN_ROW(integers, "shl", uint32_t(b) < 64 ? a << b : 0)
  HN_ROW(integers, "shr", uint32_t(b) < 64 ? a >> b : a >> 63 >> 1)
  HN_ROW(integers, "shf.l.wrap", (b << 32 | a) << (c & 31) >> 32)
  HN_ROW(integers, "shf.r.wrap", (b << 32 | a) >> (c & 31))
  HN_ROW(integers, "popc", __builtin_popcountll(a))
  HN_ROW(integers, "clz", a ? __builtin_clzll(a) - (64 - bits) : bits)
  HN_ROW(integers, "bfind.shiftamt", a ? __builtin_clzll(a) - (64 - bits) : -1)
  HN_ROW(integers, "brev", reversed(a, bits))
  HN_ROW(integers, "prmt", permuted(b << 32 | a, c))
  HN_ROW(integers, "bfi", inserted(a, b, c & 255, d & 255))
  HN_ROW(numbers, "setp.eq", a == b)
  HN_ROW(integers, "setp.ne", a != b)
  HN_ROW(numbers, "setp.lt", a < b)
  HN_ROW(numbers, "setp.le", a <= b)
  HN_ROW(numbers, "setp.gt", a > b)
  HN_ROW(numbers, "setp.ge", a >= b)
  HN_ROW(floats, "setp.neu", a != b)
  HN_ROW(floats, "setp.nan", a != a || b != b)
  HN_ROW(integers, "exch", b)
  HN_ROW(integers, "cas", a == b ? c : a)
  HN_ROW(floats, "cvt.bf16x2", uint32_t(hn::bfloat16_bits(float(a))) << 16 | hn::bfloat16_bits(float(b)))
  HN_ROW(floats, "cvt.bf16", hn::bfloat16_bits(float(a)))
  HN_ROW(floats, "cvt.f16", hn::float16_bits(float(a)))
  HN_ROW(numbers, "cvt.f32", float(a))
  HN_ROW(numbers, "cvt.f64", double(a))
  HN_ROW(integers, "cvt.f32.f16", hn::from_float16(uint16_t(a)))
  HN_ROW(floats, "cvt.sat.f32", a > 0 ? std::min<float>(float(a), 1) : 0.0f)
#undef HN_ROW
  return nullptr;
}

}  // namespace ptx
