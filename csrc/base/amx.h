// amx.h: whether AMX's bfloat16 tiles can be used: the CPU has them, the kernel lets this process use them, and
// HIDDENNET_ISA does not hold them back.
#pragma once
#include <cstdlib>
#include <cstring>

#include "isa.h"

#if defined(HN_X86) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define HN_AMX 1
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hn {

inline bool detect_tiles() {
#if defined(HN_AMX)
  const char* wish = std::getenv("HIDDENNET_ISA");
  if (wish != nullptr && std::strlen(wish) != 0) return false;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d >> 22 & 1) == 0 || (d >> 24 & 1) == 0) return false;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a >> 5 & 1) == 0) return false;  // AVX512-BF16
  constexpr long kRequest = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

// Counts only beside wide(). Settable, so that one process can compare the paths.
inline bool& tiles() {
  static bool chosen = detect_tiles();
  return chosen;
}

}  // namespace hn
