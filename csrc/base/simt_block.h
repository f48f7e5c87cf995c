// simt_block.h: one running block of threads: how its threads wait for each other, and the shared
// memory they have.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "simt_settings.h"
#include "simt_thread.h"

namespace simt {

class Block {
 public:
  Block(Index3 grid, Index3 shape, size_t dynamic_bytes, std::function<void()> body);
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block();

  void run(Index3 index);

  Thread& self() { return threads_[size_t(current_)]; }
  const Thread& thread(int warp, int lane) const { return threads_[size_t(warp * kWarp + lane)]; }
  int size() const { return int(threads_.size()); }

  // The calling thread's side of every wait.
  int barrier(const char* op, bool vote, Site site);  // number of threads that voted true
  const Meeting& meet(uint32_t mask, const char* op, const void* deposit, size_t bytes, Site site);
  void spin(const char* op, Site site);
  [[noreturn]] void fail(const std::string& what);

  void* dynamic_shared() { return arrays_[0].data; }
  void* shared_array(const void* site, size_t bytes);
  bool in_shared(const void* p, size_t bytes) const;

  const Index3 grid, shape;
  Index3 index{};

 private:
  static void enter();
  void wait(State state, const char* op, Site site);
  void resume(int i);
  bool run_warp(int warp);
  const std::vector<int>& shuffled(std::vector<int>& order, int n);
  uint32_t random();
  void release_barrier();
  void release_warp(const Thread& last);
  std::string where(const Thread& t) const;
  [[noreturn]] void deadlock(const char* why) const;

  std::function<void()> body_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<SharedArray> arrays_;  // [0] is the dynamic one
  Context scheduler_;
  std::exception_ptr failure_;
  int current_ = 0, alive_ = 0, at_barrier_ = 0, leader_ = 0, votes_ = 0, last_votes_ = 0;
  int64_t spins_ = 0;
  uint32_t random_ = 1;
  std::vector<int> warp_order_, lane_order_;
};

inline thread_local Block* block = nullptr;

inline StackPool& stacks() {
  static thread_local StackPool pool;
  return pool;
}

inline std::string text(Index3 i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

inline bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

inline SharedArray new_shared(const void* site, size_t bytes) {
  void* data = nullptr;  // of exactly `bytes`: AddressSanitizer sees the first byte past the end
  if (posix_memalign(&data, 128, bytes ? bytes : 1) != 0) throw std::bad_alloc();
  std::memset(data, poison_byte(), bytes);
  return {site, data, bytes};
}

inline Block::Block(Index3 grid_size, Index3 block_size, size_t dynamic_bytes, std::function<void()> body)
    : grid(grid_size),
      shape(block_size),
      body_(std::move(body)),
      threads_(shape.x * shape.y * shape.z),
      warps_((threads_.size() + kWarp - 1) / kWarp) {
  stacks().reserve(size());
  for (int i = 0; i < size(); ++i) {
    stacks().arm(i);
    threads_[size_t(i)].copies.resize(1);
    warps_[size_t(i / kWarp)].exist |= 1u << (i % kWarp);
  }
  arrays_.push_back(new_shared(nullptr, dynamic_bytes));
}

inline Block::~Block() {
  if (alive_ > 0) stacks().abandon();
  for (SharedArray& a : arrays_) std::free(a.data);
}

inline void Block::wait(State state, const char* op, Site site) {
  Thread& t = self();
  t.state = state;
  t.op = op;
  t.site = site;
  if (state == State::kAtBarrier) release_barrier();
  if (state == State::kAtWarp) release_warp(t);
  switch_context(t.context, scheduler_);
}

inline int Block::barrier(const char* op, bool vote, Site site) {
  if (at_barrier_ == 0) {
    leader_ = current_;
  } else if (const Thread& t = threads_[size_t(leader_)];
             !same(t.op, op) || t.site.line != site.line || !same(t.site.file, site.file)) {
    fail(std::string(op) + " at " + site.file + ":" + std::to_string(site.line) + " while another " + where(t));
  }
  ++at_barrier_;
  votes_ += vote;
  wait(State::kAtBarrier, op, site);
  return last_votes_;
}

inline void Block::release_barrier() {
  if (at_barrier_ == 0 || at_barrier_ < alive_) return;
  for (Thread& t : threads_) {
    if (t.state == State::kAtBarrier) t.state = State::kReady;
  }
  last_votes_ = votes_;
  at_barrier_ = votes_ = 0;
}

inline const Meeting& Block::meet(uint32_t mask, const char* op, const void* deposit, size_t bytes, Site site) {
  Thread& t = self();
  if (!(mask >> t.lane & 1u)) fail(std::string(op) + ": the caller's lane is not in its own mask");
  if (bytes) std::memcpy(t.deposit, deposit, bytes);
  t.mask = mask;
  wait(State::kAtWarp, op, site);
  t.meeting->unread &= ~(1u << t.lane);
  return *t.meeting;  // stays as it is until this thread waits again: nobody else runs before that
}

inline void Block::release_warp(const Thread& last) {
  Warp& w = warps_[size_t(last.warp)];
  w.waiting |= 1u << last.lane;
  if (const uint32_t missing = last.mask & (w.gone | ~w.exist)) {
    const int lane = __builtin_ctz(missing);
    fail(std::string(last.op) + ": the mask names lane " + std::to_string(lane) + ", which " +
         (w.gone >> lane & 1u ? "has left the kernel" : "the block does not have"));
  }
  if (last.mask & ~w.waiting) return;
  Thread* const lanes = &threads_[size_t(last.warp * kWarp)];
  const auto named = [&](int lane) { return (last.mask >> lane & 1u) != 0; };
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!named(lane)) continue;
    const Thread& t = lanes[lane];
    if (t.mask != last.mask) return;
    if (!same(t.op, last.op)) fail(std::string(last.op) + " while another " + where(t));
  }
  Meeting* meeting = nullptr;
  for (auto& m : w.meetings) {
    if (m->unread == 0) meeting = m.get();
  }
  if (!meeting) meeting = w.meetings.emplace_back(std::make_unique<Meeting>()).get();
  meeting->unread = last.mask;
  w.waiting &= ~last.mask;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!named(lane)) continue;
    std::memcpy(meeting->brought[lane], lanes[lane].deposit, kDepositBytes);
    lanes[lane].meeting = meeting;
    lanes[lane].state = State::kReady;
  }
}

inline void Block::spin(const char* op, Site site) { wait(State::kSpinning, op, site); }

inline void* Block::shared_array(const void* site, size_t bytes) {
  for (const SharedArray& a : arrays_) {
    if (a.site == site) return a.data;
  }
  size_t statically = bytes;
  for (size_t i = 1; i < arrays_.size(); ++i) statically += arrays_[i].bytes;
  const size_t dynamic = arrays_[0].bytes;
  if (statically > kMaxStaticShared || statically + dynamic > kMaxShared ||
      (dynamic <= kOptInShared && statically + dynamic > kMaxStaticShared)) {
    fail("shared memory: " + std::to_string(statically) + " static and " + std::to_string(dynamic) +
         " dynamic bytes do not fit; expected at most 16 KB static beside dynamic, 48 KB alone");
  }
  arrays_.push_back(new_shared(site, bytes));
  return arrays_.back().data;
}

inline bool Block::in_shared(const void* p, size_t bytes) const {
  for (const SharedArray& a : arrays_) {
    const auto low = reinterpret_cast<uintptr_t>(a.data), at = reinterpret_cast<uintptr_t>(p);
    if (at >= low && at + bytes <= low + a.bytes) return true;
  }
  return false;
}

inline std::string Block::where(const Thread& t) const {
  static const char* const kDoing[] = {"is running", "polls in ", "waits in ", "waits in ", "has left"};
  std::string s = "thread " + text(t.index) + " " + kDoing[int(t.state)];
  if (t.state == State::kReady || t.state == State::kDone) return s;
  s += std::string(t.op) + " at " + t.site.file + ":" + std::to_string(t.site.line);
  if (t.state == State::kAtWarp) {
    char mask[32];
    std::snprintf(mask, sizeof mask, " with mask 0x%08x", t.mask);
    s += mask;
    for (int lane = 0; lane < kWarp; ++lane) {
      if (!(t.mask >> lane & 1u) || t.warp * kWarp + lane >= size()) continue;
      const Thread& other = thread(t.warp, lane);
      if (other.state == State::kAtWarp && other.mask == t.mask) continue;
      return s + " for lane " + std::to_string(lane) + (other.state == State::kDone ? ", which has left" : "");
    }
  }
  return s;
}

inline void Block::fail(const std::string& what) {
  throw Error("simt: block " + text(index) + ", thread " + text(self().index) + ": " + what);
}

}  // namespace simt
