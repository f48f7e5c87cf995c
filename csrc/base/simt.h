// simt.h: run a CUDA kernel on the CPU, one fiber per CUDA thread, one block at a time. A test instrument: never a
// back-end (cpu:: is plain loops), and blind to the memory model, bank conflicts and occupancy.
//
// A fiber runs until it has to wait, so threads interleave only at barriers and warp operations, in an order that
// set_order() chooses: forward, reversed or shuffled by a seed. A kernel with a race gives different bits in different
// orders. Shared memory is poisoned at the start of every block, with another byte in each order. What would hang or be
// undefined on a GPU (a barrier some thread never reaches, a warp mask that names a lane which is elsewhere, misaligned
// vectors, endless spinning) throws simt::Error out of launch(), naming block, thread and source line.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "simt_fiber.h"

namespace simt {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr size_t kMaxStaticShared = 48 * 1024, kMaxShared = 227 * 1024, kOptInShared = 32 * 1024;
constexpr size_t kDepositBytes = 32;         // the most a lane hands to its warp at one meeting
constexpr int64_t kSpinLimit = 4'000'000;    // polls in a row, by all threads together, without any other progress
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
  const void* from;
  int bytes, zero_bytes;
};

struct Thread {
  Context context;
  State state;
  Index3 index;
  int lane, warp;
  uint32_t mask;   // lanes it waits for
  const char* op;  // what it waits in
  Site site;
  bool vote;
  Meeting* meeting;
  alignas(16) unsigned char deposit[kDepositBytes];
  std::vector<std::vector<PendingCopy>> copies;  // committed groups, oldest first; the last one is open
};

struct SharedArray {
  const void* site;
  void* data;
  size_t bytes;
};

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
  void schedule(std::vector<int>& order, uint32_t& random) const;
  void release_barrier();
  void release_warp(const Thread& last);
  std::string where(const Thread& t) const;
  [[noreturn]] void deadlock(const char* why) const;

  std::function<void()> body_;
  std::vector<Thread> threads_;
  std::vector<std::vector<std::unique_ptr<Meeting>>> meetings_;  // by warp, reused
  std::vector<SharedArray> arrays_;                              // [0] is the dynamic one
  Context scheduler_;
  std::exception_ptr failure_;
  int current_ = 0, alive_ = 0, at_barrier_ = 0, votes_ = 0, last_votes_ = 0;
  int64_t spins_ = 0;
};

inline thread_local Block* block = nullptr;

inline StackPool& stacks() {
  static thread_local StackPool pool;
  return pool;
}

inline std::string text(Index3 i) {
  return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

inline SharedArray new_shared(const void* site, size_t bytes) {
  void* data = nullptr;  // exactly `bytes` long, so that AddressSanitizer sees the first byte past the end
  if (posix_memalign(&data, 128, bytes ? bytes : 1) != 0) throw std::bad_alloc();
  std::memset(data, poison_byte(), bytes);
  return {site, data, bytes};
}

inline Block::Block(Index3 grid_size, Index3 block_size, size_t dynamic_bytes, std::function<void()> body)
    : grid(grid_size), shape(block_size), body_(std::move(body)), threads_(shape.x * shape.y * shape.z),
      meetings_((threads_.size() + kWarp - 1) / kWarp) {
  stacks().reserve(size());
  arrays_.push_back(new_shared(nullptr, dynamic_bytes));
}

inline Block::~Block() {
  for (SharedArray& a : arrays_) std::free(a.data);
}

inline void Block::enter() {
  Block& b = *block;
  enter_fiber(b.scheduler_);
  try {
    b.body_();
    if (b.self().copies.back().size() || b.self().copies.size() > 1) b.fail("thread ends with cp_async still in flight");
  } catch (...) {
    b.failure_ = std::current_exception();
  }
  b.self().state = State::kDone;
  switch_context(b.self().context, b.scheduler_, /*ends=*/true);
  std::abort();
}

inline void Block::schedule(std::vector<int>& order, uint32_t& random) const {
  const int n = size();
  const Order::Kind kind = settings().order.kind;
  if (order.empty()) {
    order.resize(size_t(n));
    for (int i = 0; i < n; ++i) order[size_t(i)] = kind == Order::kReversed ? n - 1 - i : i;
  }
  if (kind != Order::kShuffled) return;
  for (int i = n - 1; i > 0; --i) {
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    std::swap(order[size_t(i)], order[random % uint32_t(i + 1)]);
  }
}

inline void Block::resume(int i) {
  current_ = i;
  Thread& t = threads_[size_t(i)];
  t.state = State::kReady;
  switch_context(scheduler_, t.context);
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  if (!stacks().intact(i)) fail("stack overflow: expected a frame below " + std::to_string(kStackBytes) + " bytes");
  if (t.state == State::kDone) {
    --alive_;
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
    t.copies.assign(1, {});
    stacks().arm(i);
    arm_context(t.context, stacks().low(i), &Block::enter);
  }
  alive_ = size();
  at_barrier_ = votes_ = 0;
  spins_ = 0;
  std::vector<int> order;
  uint32_t random = (settings().order.seed + 1) * 2654435761u ^ (index.x * 40503u + index.y * 9973u + index.z);
  if (!random) random = 1;
  while (alive_ > 0) {
    bool ran = false;
    schedule(order, random);
    for (int i : order) {
      const State s = threads_[size_t(i)].state;
      if (s != State::kReady && s != State::kSpinning) continue;
      resume(i);
      ran = true;
    }
    if (!ran) deadlock("deadlock: every living thread waits");
  }
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
  for (const Thread& t : threads_) {
    if (t.state != State::kAtBarrier) continue;
    if (std::strcmp(t.op, op) != 0 || t.site.line != site.line || std::strcmp(t.site.file, site.file) != 0) {
      fail(std::string(op) + " at line " + std::to_string(site.line) + " while another " + where(t));
    }
    break;  // those that came before were compared with each other
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
  const int first = last.warp * kWarp;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(last.mask >> lane & 1u)) continue;
    if (first + lane >= size()) fail(std::string(last.op) + ": the mask names lane " + std::to_string(lane) +
                                     ", which the block does not have");
    const Thread& t = threads_[size_t(first + lane)];
    if (t.state == State::kDone) fail(std::string(last.op) + ": the mask names lane " + std::to_string(lane) +
                                      ", which has left the kernel");
    if (t.state != State::kAtWarp || t.mask != last.mask) return;
    if (std::strcmp(t.op, last.op) != 0) fail(std::string(last.op) + " while another " + where(t));
  }
  auto& pool = meetings_[size_t(last.warp)];
  Meeting* meeting = nullptr;
  for (auto& m : pool) {
    if (m->unread == 0) meeting = m.get();
  }
  if (!meeting) meeting = pool.emplace_back(std::make_unique<Meeting>()).get();
  meeting->unread = last.mask;
  for (int lane = 0; lane < kWarp; ++lane) {
    if (!(last.mask >> lane & 1u)) continue;
    Thread& t = threads_[size_t(first + lane)];
    std::memcpy(meeting->brought[lane], t.deposit, kDepositBytes);
    t.meeting = meeting;
    t.state = State::kReady;
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
  }
  return s;
}

inline void Block::fail(const std::string& what) {
  throw Error("simt: block " + text(index) + ", thread " + text(self().index) + ": " + what);
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

// Runs the kernel to its end. Returns what the driver would for an impossible configuration, else 0.
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
    // Shuffled: start anywhere and alternate ends, so that neighbours are neither in order nor in reverse.
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
