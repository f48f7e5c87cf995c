// simt_thread.h: what the SIMT shim remembers of a thread, a warp and a shared array while a block
// runs. No behaviour.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "simt_fiber.h"
#include "simt_settings.h"

namespace simt {

// Where in the source a thread waits; as a default argument it names the caller's line.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

enum class State : uint8_t { kReady, kSpinning, kAtBarrier, kAtWarp, kDone };

// One completed rendezvous of lanes: what each of them brought.
struct Meeting {
  uint32_t unread = 0;  // lanes that have not resumed yet
  alignas(16) unsigned char brought[kWarp][kDepositBytes];
};

struct PendingCopy {
  void* to;
  const void* from;  // null: zeros
  int bytes;
};

struct Thread {
  Context context;
  State state;
  Index3 index;
  int lane, warp;
  uint32_t mask;   // lanes it waits for
  const char* op;  // what it waits in
  Site site;
  Meeting* meeting;
  alignas(16) unsigned char deposit[kDepositBytes];
  std::vector<std::vector<PendingCopy>> copies;  // committed groups, oldest first; the last one is open
};

struct Warp {
  uint32_t exist = 0, waiting = 0, gone = 0;       // lanes
  std::vector<std::unique_ptr<Meeting>> meetings;  // reused when read by all
};

struct SharedArray {
  const void* site;
  void* data;
  size_t bytes;
};

}  // namespace simt
