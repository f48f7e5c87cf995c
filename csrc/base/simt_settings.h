// simt_settings.h: what a test chooses about the SIMT shim, and the limits and errors of a GPU that
// it keeps.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace simt {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxStaticShared = 48 * 1024, kMaxShared = 227 * 1024, kOptInShared = 32 * 1024;
constexpr size_t kDepositBytes = 32;       // the most a lane hands to its warp at one meeting
constexpr int64_t kSpinLimit = 4'000'000;  // polls in a row, by all threads together, without any other progress
constexpr int kInvalidValue = 1, kInvalidConfiguration = 9;  // cudaError_t

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Index3 {
  unsigned x, y, z;
};

struct Order {
  enum Kind { kForward, kReversed, kShuffled } kind = kForward;
  uint32_t seed = 0;
};

struct Settings {
  Order order;
  int multiprocessors = 4;
};

inline Settings& settings() {
  static Settings s;
  return s;
}
inline void set_order(Order order) { settings().order = order; }
inline void set_multiprocessors(int count) { settings().multiprocessors = count; }

// What every byte of shared memory is at the start of a block. 0xff: NaN to floats, -1 to integers.
inline uint8_t poison_byte() {
  const Order o = settings().order;
  return o.kind == Order::kForward ? 0xff : o.kind == Order::kReversed ? 0xa5 : uint8_t(0x80u | (o.seed * 37u + 11u));
}

}  // namespace simt
