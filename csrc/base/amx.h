// amx.h: products of bfloat16: AVX512-BF16, and AMX's tiles, which Linux hands out to a process on request. What
// HIDDENNET_ISA holds back, this does too.
#pragma once
#include <cstdint>

#include "isa.h"

#if defined(HN_X86) && defined(__linux__) && (defined(__clang__) || __GNUC__ >= 11)
#define HN_AMX 1
#define HN_TARGET_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw")))
#define HN_TARGET_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512dq,avx512bf16")))
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace hn {

// Counts only beside wide(). Settable, so that one process can compare the paths.
inline bool& bfloat16_products() {
#if defined(HN_AMX)
  static bool chosen = dot_products() && wide() && __builtin_cpu_supports("avx512bf16");
#else
  static bool chosen = false;
#endif
  return chosen;
}

// Counts only beside bfloat16_products(). Settable, too.
inline bool& matrix_tiles() {
#if defined(HN_AMX)
  const auto granted = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kBfloat16 = 1u << 22, kTiles = 1u << 24;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kBfloat16) == 0 || (d & kTiles) == 0) return false;
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  };
  static bool chosen = bfloat16_products() && granted();
#else
  static bool chosen = false;
#endif
  return chosen;
}

#if defined(HN_AMX)

struct alignas(64) TileSettings {
  uint8_t palette = 1, first_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Eight tiles of 16 rows and 64 bytes are this thread's while this lives, where they are `used`.
class TileRegisters {
 public:
  HN_TARGET_AMX explicit TileRegisters(bool used) : used_(used) {
    static const TileSettings settings;
    if (used_) _tile_loadconfig(&settings);
  }
  HN_TARGET_AMX ~TileRegisters() {
    if (used_) _tile_release();
  }
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;

 private:
  bool used_;
};

#else

struct TileRegisters {
  explicit TileRegisters(bool) {}
};

#endif

}  // namespace hn
