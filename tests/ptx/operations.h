// operations.h: what a thread does by itself: arithmetic, comparisons, conversions, loads, stores, atomics, copies. A
// function here is an instruction of the PTX ISA; arithmetic_run() and memory_run() say which.
#pragma once
#include <cfenv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include "base/dtype.h"
#include "machine.h"

namespace ptx {

template <class T>
T as(uint64_t bits) {
  if constexpr (std::is_same_v<T, bool>) return bits != 0;
  T v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// A NaN that arithmetic makes is always this one, as on the hardware.
template <class T>
uint64_t bits_of(T v) {
  if constexpr (std::is_same_v<T, float>) {
    if (v != v) return 0x7fffffff;
  }
  uint64_t bits = 0;
  std::memcpy(&bits, &v, sizeof v);
  return bits;
}

// Calls f with a number of the type's C++ type.
template <class F>
auto with_type(const std::string& type, F f) {
  const char kind = type[0];
  switch (type_bytes(type)) {
    case 1: return kind == 'p' ? f(bool()) : kind == 's' ? f(int8_t()) : f(uint8_t());
    case 2: return kind == 's' ? f(int16_t()) : f(uint16_t());
    case 4: return kind == 's' ? f(int32_t()) : kind == 'f' ? f(float()) : f(uint32_t());
    case 8: return kind == 's' ? f(int64_t()) : kind == 'f' ? f(double()) : f(uint64_t());
    default: throw Error("ptx: no type " + type);
  }
}

// first operand = f(the next three), each a T; R: the type of the result if it is another.
template <class F, class R = void>
Run compute(const std::string& type, F) {
  return with_type(type, [](auto number) -> Run {
    using T = decltype(number);
    if constexpr (std::is_invocable_v<F, T, T, T>) {
      return [](Machine&, Thread& t, const Instruction& i) {
        const Operand* o = i.operands.data();
        using To = std::conditional_t<std::is_void_v<R>, T, R>;
        t.put(o[0], bits_of(To(F()(as<T>(t.get(o[1])), as<T>(t.get(o[2])), as<T>(t.get(o[3]))))));
      };
    }
    return nullptr;
  });
}

template <class T>
using Wide = std::conditional_t<
    std::is_signed_v<T>,
    std::conditional_t<sizeof(T) == 8, __int128, std::conditional_t<sizeof(T) == 4, int64_t, int32_t>>,
    std::conditional_t<sizeof(T) == 8, unsigned __int128, std::conditional_t<sizeof(T) == 4, uint64_t, uint32_t>>>;

inline Run multiply(const Instruction& i, const std::string& type) {
  if (i.has("wide")) {
    return with_type(type, [](auto number) -> Run {
      using T = decltype(number);
      if constexpr (std::is_integral_v<T> && sizeof(T) < 8) {
        return [](Machine&, Thread& t, const Instruction& n) {
          const auto a = Wide<T>(as<T>(t.get(n.operands[1]))), b = Wide<T>(as<T>(t.get(n.operands[2])));
          t.put(n.operands[0], bits_of(Wide<T>(a * b)));
        };
      }
      return nullptr;
    });
  }
  if (!i.has("hi")) return compute(type, [](auto a, auto b, auto) { return a * b; });
  return compute(type, [](std::integral auto a, auto b, auto) {
    return Wide<decltype(a)>(Wide<decltype(a)>(a) * Wide<decltype(a)>(b)) >> (8 * sizeof a);
  });
}

inline float fused_down(float a, float b, float c) {
  std::fesetround(FE_DOWNWARD);
  volatile float x = a, y = b, z = c;
  volatile float r = std::fma(x, y, z);
  std::fesetround(FE_TONEAREST);
  return r;
}

inline Run compare(const Instruction& i, const std::string& type) {
  const auto is = [&](const char* name, const char* of_unsigned = "") {
    return i.mods[0] == name || i.mods[0] == of_unsigned;
  };
  const auto by = [&](auto f) { return compute<decltype(f), bool>(type, f); };
  if (is("eq")) return by([](auto a, auto b, auto) { return a == b; });
  if (is("ne")) return by([](auto a, auto b, auto) { return a != b && a == a && b == b; });
  if (is("neu")) return by([](auto a, auto b, auto) { return a != b; });
  if (is("lt", "lo")) return by([](auto a, auto b, auto) { return a < b; });
  if (is("le", "ls")) return by([](auto a, auto b, auto) { return a <= b; });
  if (is("gt", "hi")) return by([](auto a, auto b, auto) { return a > b; });
  if (is("ge", "hs")) return by([](auto a, auto b, auto) { return a >= b; });
  if (is("nan")) return by([](auto a, auto b, auto) { return a != a || b != b; });
  return nullptr;
}

inline Run convert(const Instruction& i) {
  const std::string to = i.mods[i.mods.size() - 2], from = i.mods.back();
  if (to == "bf16x2") {
    return compute<decltype([](float a, float b, auto) {
                     return uint32_t(hn::bfloat16_bits(a)) << 16 | hn::bfloat16_bits(b);
                   }),
                   uint32_t>("f32", {});
  }
  if (to == "bf16")
    return compute<decltype([](float a, auto, auto) { return hn::bfloat16_bits(a); }), uint16_t>(from, {});
  if (to == "f16")
    return compute<decltype([](float a, auto, auto) { return hn::float16_bits(a); }), uint16_t>(from, {});
  if (from == "f16") {
    return compute<decltype([](uint16_t a, auto, auto) { return hn::from_float16(a); }), float>("u16", {});
  }
  if (i.has("sat"))
    return compute(from,
                   [](std::floating_point auto a, auto, auto) { return a > 0 ? std::min<decltype(a)>(a, 1) : 0; });
  return with_type(to, [&](auto number) -> Run {
    using To = decltype(number);
    return with_type(from, [](auto source) -> Run {
      using From = decltype(source);
      if constexpr (std::is_floating_point_v<From> && !std::is_floating_point_v<To>) return nullptr;
      return [](Machine&, Thread& t, const Instruction& n) {
        t.put(n.operands[0], bits_of(To(as<From>(t.get(n.operands[1])))));
      };
    });
  });
}

inline Run bits_run(const Instruction& i, const std::string& type) {
  const auto count = [&](auto f) { return compute<decltype(f), uint32_t>(type, f); };
  if (i.op == "popc") return count([](std::integral auto a, auto, auto) { return __builtin_popcountll(a); });
  if (i.op == "clz") {
    return count([](std::integral auto a, auto, auto) {
      return a ? __builtin_clzll(a) - (64 - 8 * int(sizeof a)) : 8 * int(sizeof a);
    });
  }
  if (i.op == "bfind" && i.has("shiftamt") && type == "u32") {
    return count([](std::integral auto a, auto, auto) { return a ? __builtin_clz(uint32_t(a)) : ~0u; });
  }
  if (i.op == "brev") {
    return compute(type, [](std::integral auto a, auto, auto) {
      decltype(a) r = 0;
      for (size_t b = 0; b < 8 * sizeof a; ++b) r |= (a >> b & 1) << (8 * sizeof a - 1 - b);
      return r;
    });
  }
  if (i.op == "prmt") {
    return compute("b32", [](uint32_t a, uint32_t b, uint32_t select) {
      const uint64_t bytes = uint64_t(b) << 32 | a;
      uint32_t r = 0;
      for (int n = 0; n < 4; ++n) {
        const uint32_t s = select >> (4 * n), byte = uint32_t(bytes >> (8 * (s & 7))) & 255;
        r |= (s & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * n);
      }
      return r;
    });
  }
  if (i.op == "shf" && i.has("wrap")) {  // by 0 to 31 of a pair
    if (i.has("l")) {
      return compute("b32",
                     [](uint32_t a, uint32_t b, uint32_t n) { return (uint64_t(b) << 32 | a) << (n & 31) >> 32; });
    }
    return compute("b32", [](uint32_t a, uint32_t b, uint32_t n) { return (uint64_t(b) << 32 | a) >> (n & 31); });
  }
  if (i.op == "bfi") {
    return [](Machine&, Thread& t, const Instruction& n) {
      const uint64_t width = n.mods.back() == "b64" ? 64 : 32, at = t.get(n.operands[3]) & 255;
      const uint64_t length = std::min(t.get(n.operands[4]) & 255, width - std::min(at, width));
      const uint64_t mask = at >= width ? 0 : (length == 64 ? ~uint64_t(0) : (uint64_t(1) << length) - 1) << at;
      const uint64_t all = width == 64 ? ~uint64_t(0) : 0xffffffffu;
      t.put(n.operands[0], ((t.get(n.operands[1]) << at & mask) | (t.get(n.operands[2]) & ~mask)) & all);
    };
  }
  return nullptr;
}

// mov of a vector of registers into one of their total width, and back.
inline void pack(Machine&, Thread& t, const Instruction& i) {
  const int bits = int(type_bytes(i.mods.back())) * 8 / i.items;
  uint64_t v = 0;
  for (int n = 0; n < i.items; ++n) v |= (t.get(i.operands[size_t(n) + 1]) & ((uint64_t(1) << bits) - 1)) << (bits * n);
  t.put(i.operands[0], v);
}
inline void unpack(Machine&, Thread& t, const Instruction& i) {
  const int bits = int(type_bytes(i.mods.back())) * 8 / i.items;
  const uint64_t v = t.get(i.operands[size_t(i.items)]);
  for (int n = 0; n < i.items; ++n) t.put(i.operands[size_t(n)], v >> (bits * n) & ((uint64_t(1) << bits) - 1));
}

// Of what only moves: a float keeps its bits.
inline std::string plain_type(const std::string& type) { return type[0] == 'f' ? "b" + type.substr(1) : type; }

inline Run arithmetic_run(const Instruction& i) {
  const std::string &op = i.op, type = i.mods.empty() ? "" : i.mods.back();
  const std::string plain = plain_type(type);
  if (op == "mov" && i.items > 1) return i.vector_first ? &unpack : &pack;
  if (op == "cvta" && i.has("shared")) {  // from or to what an address of any space is
    if (i.has("to")) return compute(plain, [](std::integral auto a, auto, auto) { return a - kSharedWindow; });
    return compute(plain, [](std::integral auto a, auto, auto) { return a + kSharedWindow; });
  }
  if (op == "mov" || op == "cvta") return compute(plain, [](auto a, auto, auto) { return a; });
  if (op == "selp") return compute(plain, [](auto a, auto b, auto c) { return c ? a : b; });
  if (op == "add") return compute(type, [](auto a, auto b, auto) { return a + b; });
  if (op == "sub") return compute(type, [](auto a, auto b, auto) { return a - b; });
  if (op == "mul") return multiply(i, type);
  if (op == "mad" && i.has("lo")) return compute(type, [](auto a, auto b, auto c) { return a * b + c; });
  if (op == "fma" && i.has("rm"))
    return compute(type, [](std::same_as<float> auto a, auto b, auto c) { return fused_down(a, b, c); });
  if (op == "fma") return compute(type, [](std::floating_point auto a, auto b, auto c) { return std::fma(a, b, c); });
  if (op == "neg") return compute(type, [](auto a, auto, auto) { return -a; });
  if (op == "abs") return compute(type, [](auto a, auto, auto) { return a > 0 ? a : -a; });
  if (op == "min") return compute(type, [](auto a, auto b, auto) { return b != b || a < b ? a : b; });
  if (op == "max") return compute(type, [](auto a, auto b, auto) { return b != b || a > b ? a : b; });
  if (op == "and") return compute(type, [](std::integral auto a, auto b, auto) { return a & b; });
  if (op == "or") return compute(type, [](std::integral auto a, auto b, auto) { return a | b; });
  if (op == "xor") return compute(type, [](std::integral auto a, auto b, auto) { return a ^ b; });
  if (op == "not") return compute(type, [](std::integral auto a, auto, auto) { return a ^ decltype(a)(-1); });
  if (op == "sqrt") return compute(type, [](std::floating_point auto a, auto, auto) { return std::sqrt(a); });
  if (op == "rcp") return compute(type, [](std::floating_point auto a, auto, auto) { return 1 / a; });
  if (op == "ex2")
    return compute(type, [](std::same_as<float> auto a, auto, auto) {
      const auto r = float(std::exp2(double(a)));
      return r < std::numeric_limits<float>::min() ? 0.0f : r;
    });
  if (op == "div")
    return compute(type, [](auto a, auto b, auto) {
      if (std::is_integral_v<decltype(a)> && b == 0) throw Error("division by zero");
      return a / b;
    });
  if (op == "rem")
    return compute(type, [](std::integral auto a, auto b, auto) {
      if (b == 0) throw Error("division by zero");
      return a % b;
    });
  if (op == "shl")
    return compute(
        type, [](std::integral auto a, auto b, auto) { return uint32_t(b) >= 8 * sizeof a ? 0 : a << uint32_t(b); });
  if (op == "shr")
    return compute(type, [](std::integral auto a, auto b, auto) {
      return uint32_t(b) < 8 * sizeof a          ? a >> uint32_t(b)
             : std::signed_integral<decltype(a)> ? a >> (8 * sizeof a - 1)
                                                 : 0;
    });
  if (op == "setp") return compare(i, type);
  if (op == "cvt") return convert(i);
  return bits_run(i, type);
}

}  // namespace ptx
