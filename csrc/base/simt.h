// simt.h: run a CUDA kernel on the CPU, one fiber per CUDA thread, one block at a time. A test
// instrument: never a back-end (cpu:: is plain loops), and blind to the memory model, bank
// conflicts and occupancy.
//
// A fiber runs until it has to wait, so threads interleave only at barriers and warp operations: a
// warp runs on until all its lanes wait for other warps, then the next one does, in an order that
// set_order() chooses: forward, reversed or shuffled by a seed. A kernel with a race gives
// different bits in different orders. Shared memory is poisoned at the start of every block, with
// another byte in each order. What would hang or be undefined on a GPU (a barrier some thread never
// reaches, a warp mask that names a lane which is elsewhere, misaligned vectors, endless spinning)
// throws simt::Error out of launch(), naming block, thread and source line.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "simt_block.h"

namespace simt {

inline void Block::enter() {
  Block& b = *block;
  enter_fiber(b.scheduler_);
  try {
    b.body_();
    if (b.self().copies.back().size() || b.self().copies.size() > 1)
      b.fail("thread ends with cp_async still in flight");
  } catch (...) {
    b.failure_ = std::current_exception();
  }
  b.self().state = State::kDone;
  switch_context(b.self().context, b.scheduler_, /*ends=*/true);
  std::abort();
}

// The order of this round: 0 to n - 1, or back, or any.
inline const std::vector<int>& Block::shuffled(std::vector<int>& order, int n) {
  const Order::Kind kind = settings().order.kind;
  if (int(order.size()) != n) {
    order.resize(size_t(n));
    for (int i = 0; i < n; ++i) order[size_t(i)] = kind == Order::kReversed ? n - 1 - i : i;
  }
  if (kind == Order::kShuffled) {
    for (int i = n - 1; i > 0; --i) std::swap(order[size_t(i)], order[random() % uint32_t(i + 1)]);
  }
  return order;
}

inline uint32_t Block::random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

// Runs the lanes of a warp that can run, each until it waits; again while they release each other,
// so that a warp gets as far ahead of the others as it ever could. Shuffled: sometimes only once.
inline bool Block::run_warp(int warp) {
  const int first = warp * kWarp, lanes = std::min(kWarp, size() - first);
  const bool once = settings().order.kind == Order::kShuffled && random() % 2;
  bool ran = false;
  for (bool polls = true;; polls = false) {
    bool ready = false;
    for (int lane : shuffled(lane_order_, lanes)) {
      const State s = threads_[size_t(first + lane)].state;
      if (s != State::kReady && !(polls && s == State::kSpinning)) continue;
      resume(first + lane);
      ready = true;
    }
    ran = ran || ready;
    if (!ready || once) return ran;
  }
}

inline void Block::resume(int i) {
  current_ = i;
  Thread& t = threads_[size_t(i)];
  t.state = State::kReady;
  switch_context(scheduler_, t.context);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  if (t.state == State::kDone) {
    if (!stacks().intact(i)) {
      fail("stack overflow: expected less than " + std::to_string(kStackBytes) +
           " bytes of locals; move arrays to shared memory");
    }
    --alive_;
    warps_[size_t(t.warp)].gone |= 1u << t.lane;
    release_barrier();
  }
  spins_ = t.state == State::kSpinning ? spins_ + 1 : 0;
  if (spins_ > kSpinLimit) deadlock("endless spin: nobody makes what the polling threads wait for");
}

inline void Block::run(Index3 block_index) {
  index = block_index;
  for (SharedArray& a : arrays_) std::memset(a.data, poison_byte(), a.bytes);
  for (int i = 0; i < size(); ++i) {
    Thread& t = threads_[size_t(i)];
    const unsigned n = unsigned(i);
    t.index = {n % shape.x, n / shape.x % shape.y, n / (shape.x * shape.y)};
    t.lane = i % kWarp;
    t.warp = i / kWarp;
    t.state = State::kReady;
    t.op = "";
    arm_context(t.context, stacks().low(i), &Block::enter);
  }
  for (Warp& w : warps_) w.waiting = w.gone = 0;
  alive_ = size();
  at_barrier_ = votes_ = 0;
  spins_ = 0;
  random_ = (settings().order.seed + 1) * 2654435761u ^ (index.x * 40503u + index.y * 9973u + index.z + 1);
  if (random_ == 0) random_ = 1;
  while (alive_ > 0) {
    bool ran = false;
    for (int warp : shuffled(warp_order_, int(warps_.size()))) ran = run_warp(warp) || ran;
    if (!ran) deadlock("deadlock: every living thread waits");
  }
}

inline void Block::deadlock(const char* why) const {
  std::string s = "simt: block " + text(index) + ": " + why;
  std::vector<std::string> seen;  // one thread for each place
  for (const Thread& t : threads_) {
    if (t.state == State::kDone || t.state == State::kReady) continue;
    const std::string place = where(t), key = place.substr(place.find(')'));
    bool known = false;
    for (const std::string& k : seen) known = known || k == key;
    if (known) continue;
    seen.push_back(key);
    s += "; " + place;
  }
  throw Error(s);
}

// Runs the kernel to its end. Returns what the driver would for an impossible configuration, else
// 0.
template <class... P>
int launch(void (*kernel)(P...), Index3 grid, Index3 shape, size_t dynamic_bytes, P... args) {
  const uint64_t threads = uint64_t(shape.x) * shape.y * shape.z;
  if (threads == 0 || shape.x > kMaxThreads || shape.y > kMaxThreads || shape.z > 64 || threads > kMaxThreads ||
      grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return kInvalidConfiguration;
  }
  if (dynamic_bytes > kMaxShared) return kInvalidValue;
  if (block) block->fail("launch: expected host code, got a kernel that launches a kernel");

  Block b(grid, shape, dynamic_bytes, [&] { kernel(args...); });
  struct Current {
    explicit Current(Block* b) { block = b; }
    ~Current() { block = nullptr; }
  } current(&b);
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  const Order order = settings().order;
  const uint64_t turn = order.kind == Order::kShuffled ? order.seed % blocks : 0;
  for (uint64_t n = 0; n < blocks; ++n) {
    // Shuffled: start anywhere and alternate ends, so that neighbours are neither in order nor in
    // reverse.
    uint64_t i = order.kind == Order::kReversed ? blocks - 1 - n : n;
    if (order.kind == Order::kShuffled) i = (turn + (n % 2 ? blocks - 1 - n / 2 : n / 2)) % blocks;
    b.run({unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / (uint64_t(grid.x) * grid.y))});
  }
  return 0;
}

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(block->dynamic_shared());
}

template <class T>
T* shared_array(const void* site, size_t count) {
  return static_cast<T*>(block->shared_array(site, count * sizeof(T)));
}

}  // namespace simt
