// isa.h: which instruction set the CPU loops use, decided once at run time. HIDDENNET_ISA=scalar forces the plain path,
// HIDDENNET_ISA=avx2 forbids the few loops that have an AVX-512 twin to use it, =avx512 those of integer dot products.
#pragma once
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define HN_X86 1
#define HN_TARGET_AVX2 __attribute__((target("avx2")))
#define HN_TARGET_FMA __attribute__((target("avx2,fma")))
#define HN_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq")))
#define HN_TARGET_VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vnni")))
#include <immintrin.h>
#else
#define HN_TARGET_AVX2
#endif

#if defined(__GNUC__)
#define HN_INLINE inline __attribute__((always_inline))
#else
#define HN_INLINE inline
#endif

namespace hn {

enum class Isa { kScalar, kAvx2 };

inline Isa detect_isa() {
  const char* wish = std::getenv("HIDDENNET_ISA");
  if (wish != nullptr && std::strcmp(wish, "scalar") == 0) return Isa::kScalar;
#if defined(HN_X86)
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kScalar;
}

// Settable, so that one process can compare the paths.
inline Isa& isa() {
  static Isa chosen = detect_isa();
  return chosen;
}

// AVX-512 beside AVX2. Settable, too.
inline bool& wide() {
#if defined(HN_X86)
  const auto allowed = [](const char* wish) {
    return wish == nullptr || std::strlen(wish) == 0 || std::strcmp(wish, "avx512") == 0;
  };
  static bool chosen = allowed(std::getenv("HIDDENNET_ISA")) && __builtin_cpu_supports("avx512f") &&
                       __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vl");
#else
  static bool chosen = false;
#endif
  return chosen;
}

// AVX-512's integer dot products; they count only beside wide(). Settable, too.
inline bool& dot_products() {
#if defined(HN_X86)
  const auto allowed = [](const char* wish) { return wish == nullptr || std::strlen(wish) == 0; };
  static bool chosen = allowed(std::getenv("HIDDENNET_ISA")) && __builtin_cpu_supports("avx512vnni");
#else
  static bool chosen = false;
#endif
  return chosen;
}

}  // namespace hn

// Runs `body(args...)`, an always-inline function, compiled once for plain x86-64 and once for AVX2; HN_DISPATCH_WIDE
// once more for AVX-512; HN_DISPATCH_FMA with fused multiply-add beside AVX2, for bodies that say fma_rn. Loops that the
// compiler turns into vectors, and round alike in every one.
#if defined(HN_X86)
#define HN_DISPATCH_FMA(name, body)                                                                   \
  template <class... A>                                                                               \
  HN_TARGET_FMA inline void name##_fma(A... args) {                                                   \
    body(args...);                                                                                    \
  }                                                                                                   \
  template <class... A>                                                                               \
  inline void name(A... args) {                                                                       \
    if (::hn::isa() == ::hn::Isa::kAvx2 && __builtin_cpu_supports("fma")) return name##_fma(args...); \
    body(args...);                                                                                    \
  }
#define HN_DISPATCH_WIDE(name, body)                                                                               \
  template <class... A>                                                                                            \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) inline void name##_avx512( \
      A... args) {                                                                                                 \
    body(args...);                                                                                                 \
  }                                                                                                                \
  HN_DISPATCH(name##_narrow, body)                                                                                 \
  template <class... A>                                                                                            \
  inline void name(A... args) {                                                                                    \
    if (::hn::wide()) return name##_avx512(args...);                                                               \
    name##_narrow(args...);                                                                                        \
  }
#define HN_DISPATCH(name, body)                                       \
  template <class... A>                                               \
  HN_TARGET_AVX2 inline void name##_avx2(A... args) {                 \
    body(args...);                                                    \
  }                                                                   \
  template <class... A>                                               \
  inline void name(A... args) {                                       \
    if (::hn::isa() == ::hn::Isa::kAvx2) return name##_avx2(args...); \
    body(args...);                                                    \
  }
#else
#define HN_DISPATCH(name, body) \
  template <class... A>         \
  inline void name(A... args) { \
    body(args...);              \
  }
#define HN_DISPATCH_WIDE(name, body) HN_DISPATCH(name, body)
#define HN_DISPATCH_FMA(name, body) HN_DISPATCH(name, body)
#endif
