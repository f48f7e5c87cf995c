// machine.h: a grid runs: several blocks at once, their threads instruction by instruction in random order. Registers and
// shared memory hold garbage at the start; asynchronous copies land at a random time before they are waited for.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "memory.h"

namespace ptx {

constexpr int kWarp = 32;
constexpr uint64_t kSharedWindow = uint64_t(0x6a) << 56;  // generic addresses of shared memory

struct Dim {
  unsigned x = 1, y = 1, z = 1;
  uint64_t count() const { return uint64_t(x) * y * z; }
  Dim at(uint64_t n) const { return {unsigned(n % x), unsigned(n / x % y), unsigned(n / x / y)}; }
};

struct Copy {  // cp.async under way
  uint64_t to, from;
  int bytes, size;  // the rest of size is zeros
  int group;
};

struct Block;
struct Thread {
  uint64_t* r = nullptr;  // registers
  size_t pc = 0;
  const Instruction* waits = nullptr;  // at a barrier or for its warp
  uint32_t meets = 0;                  // lanes it waits for
  bool done = false, yields = false;
  int index = 0, group = 0;
  std::vector<Copy> copies;
  Block* block = nullptr;

  uint64_t get(const Operand& o) const { return r[o.reg] + o.number; }
  void put(const Operand& o, uint64_t v) { r[o.reg] = v; }
};

struct Warp {
  Thread* lanes;
  uint32_t mask;  // of those that take part

  bool has(int lane) const { return mask >> lane & 1; }
  uint64_t get(int lane, const Operand& o) const { return lanes[lane].get(o); }
  template <class F>
  void each(const F& f) const {  // f(lane, thread)
    for (int l = 0; l < kWarp; ++l) {
      if (has(l)) f(l, lanes[l]);
    }
  }
};

struct Block {
  Dim index;
  std::vector<uint64_t> registers;
  std::vector<Thread> threads;
  std::vector<int> ready;
  std::vector<uint8_t> shared;
  Cache cache;
  int alive = 0, at_barrier = 0;
};

class Machine {
 public:
  Machine(Kernel& kernel, Dim grid, Dim shape, size_t dynamic_bytes, uint64_t seed, int64_t most_steps = 400'000'000)
      : kernel_(kernel),
        grid_(grid),
        shape_(shape),
        shared_(kernel.shared_bytes + dynamic_bytes),
        random_(seed),
        steps_left_(most_steps) {}

  void run() {
    const uint64_t resident = 1 + random() % 6, burst = random() % 2 ? 8 : 64;
    std::vector<uint64_t> order(grid_.count());
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    for (uint64_t i = order.size(); i-- > 1;) std::swap(order[i], order[random() % (i + 1)]);
    std::vector<std::unique_ptr<Block>> blocks;
    while (!order.empty() || !blocks.empty()) {
      while (blocks.size() < resident && !order.empty()) {
        blocks.push_back(start(order.back()));
        order.pop_back();
      }
      const size_t chosen = random() % blocks.size();
      Block& b = *blocks[chosen];
      if (b.alive == 0) {
        b.cache.release_all();
        spare().push_back(std::move(b.registers));
        blocks.erase(blocks.begin() + long(chosen));
        continue;
      }
      if (b.ready.empty()) fail(b, "deadlock: every living thread waits");
      run_thread(b, random() % b.ready.size(), 1 + random() % burst);
      if (random() % 16 == 0) b.cache.release_any(random());
    }
  }

  uint64_t random() {  // SplitMix64
    uint64_t z = (random_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  // Where a thread reads and writes. space: as an instruction's.
  uint64_t load(Thread& t, char space, uint64_t address, int bytes) {
    const void* place = on_chip(t, space, address, bytes);
    if (place == nullptr) return t.block->cache.load(address, bytes);
    uint64_t value = 0;
    std::memcpy(&value, place, size_t(bytes));
    return value;
  }
  void store(Thread& t, char space, uint64_t address, int bytes, uint64_t value) {
    void* place = on_chip(t, space, address, bytes);
    if (place == nullptr) return t.block->cache.store(address, bytes, value, t.index);
    std::memcpy(place, &value, size_t(bytes));
  }
  // Shared memory or parameters; null: global memory.
  void* on_chip(Thread& t, char space, uint64_t address, int bytes) {
    const bool in_shared = space == 's' || address >> 56 == kSharedWindow >> 56;
    std::vector<uint8_t>& memory = in_shared ? t.block->shared : kernel_.arguments;
    const uint64_t begin = !in_shared ? uint64_t(memory.data()) : address & kSharedWindow;
    if (!in_shared && space != 'p' && address - begin >= memory.size()) return nullptr;
    if (address % uint64_t(bytes) != 0) throw Error("misaligned access");
    if (address - begin + uint64_t(bytes) > memory.size()) throw Error("access outside of shared memory");
    return memory.data() + (address - begin);
  }

  // Copies that have arrived, of those that arrives(copy) names.
  template <class F>
  void land(Thread& t, const F& arrives) {
    std::erase_if(t.copies, [&](const Copy& c) {
      if (!arrives(c)) return false;
      for (int b = 0; b < c.size; ++b) {
        store(t, 's', c.to + uint64_t(b), 1, b < c.bytes ? t.block->cache.load(c.from + uint64_t(b), 1) : 0);
      }
      return true;
    });
  }

  void leave(Thread& t) {
    land(t, [](const Copy&) { return true; });
    t.done = true;
    --t.block->alive;
    open_barrier(*t.block);
  }

  // bar.sync and bar.red: exited threads do not count.
  void arrive(Thread& t, const Instruction& i) {
    t.waits = &i;
    ++t.block->at_barrier;
    open_barrier(*t.block);
  }

  // An operation of the lanes in `mask`, done by the one that comes last.
  void meet(Thread& t, const Instruction& i, uint32_t mask) {
    std::vector<Thread>& threads = t.block->threads;
    const size_t warp = size_t(t.index / kWarp * kWarp);
    if (!(mask >> (t.index % kWarp) & 1)) throw Error("a lane that its own mask does not name");
    t.waits = &i;
    t.meets = mask;
    for (size_t l = 0; l < kWarp; ++l) {
      if (!(mask >> l & 1)) continue;
      if (warp + l >= threads.size() || threads[warp + l].done) throw Error("the mask names a lane that is not there");
      if (threads[warp + l].waits != &i) return;
      if (threads[warp + l].meets != mask) throw Error("lanes of one meeting name different masks");
    }
    const Warp all{&threads[warp], mask};
    i.warp_run(*this, all, i);
    all.each([&](int, Thread& lane) { wake(lane); });
  }

 private:
  // What registers hold before a block writes them is what an earlier one left there, as on a GPU.
  static std::vector<std::vector<uint64_t>>& spare() {
    static std::vector<std::vector<uint64_t>> all;
    return all;
  }

  std::unique_ptr<Block> start(uint64_t n) {
    auto b = std::make_unique<Block>();
    b->index = grid_.at(n);
    b->shared.resize(shared_);
    for (uint8_t& byte : b->shared) byte = uint8_t(random());
    b->threads.resize(shape_.count());
    if (!spare().empty()) {
      b->registers = std::move(spare().back());
      spare().pop_back();
    }
    const size_t each = size_t(kernel_.registers), all = each * b->threads.size();
    if (b->registers.size() < all) b->registers.resize(all, 0xdeadbeefdeadbeefu);
    for (Thread& t : b->threads) {
      t.index = b->alive++;
      t.block = b.get();
      t.r = b->registers.data() + size_t(t.index) * each;
      t.r[kZero] = 0;
      for (const auto& [name, reg] : kernel_.specials) t.r[reg] = special(name, shape_.at(uint64_t(t.index)), b->index);
      b->ready.push_back(t.index);
    }
    return b;
  }

  uint64_t special(const std::string& name, const Dim& thread, const Dim& block) const {
    const unsigned lane = (thread.x + shape_.x * (thread.y + shape_.y * thread.z)) % kWarp;
    if (name == "%laneid") return lane;
    if (name == "%lanemask_lt") return (1u << lane) - 1;
    const std::string of = name.substr(0, name.find('.'));
    const Dim* d = of == "%tid" ? &thread : of == "%ntid" ? &shape_ : of == "%ctaid" ? &block : nullptr;
    if (of == "%nctaid") d = &grid_;
    if (d == nullptr) throw Error("ptx: " + kernel_.name + ": no special register " + name);
    return name.back() == 'x' ? d->x : name.back() == 'y' ? d->y : d->z;
  }

  void run_thread(Block& b, size_t place, uint64_t count) {
    Thread& t = b.threads[size_t(b.ready[place])];
    t.yields = false;
    land(t, [&](const Copy&) { return random() % 8 == 0; });
    for (; count > 0 && !t.yields; --count) {
      const Instruction& i = kernel_.code[t.pc++];
      if (i.guard != kZero && (t.r[i.guard] != 0) == i.unless) continue;
      if (--steps_left_ < 0) fail(b, "too many steps: an endless wait?");
      if (i.stops) {  // who waits is not ready; a meeting or barrier that this instruction ends makes it so again
        b.ready[place] = b.ready.back();
        b.ready.pop_back();
      }
      try {
        i.run(*this, t, i);
      } catch (const Error& e) {
        fail(b, "thread " + std::to_string(t.index) + ", " + i.text + ": " + e.what());
      }
      if (i.stops) return;
    }
  }

  void wake(Thread& t) {
    t.waits = nullptr;
    t.block->ready.push_back(t.index);
  }

  void open_barrier(Block& b) {
    if (b.at_barrier == 0 || b.at_barrier < b.alive) return;
    const auto votes_at = [](const Instruction& bar) { return bar.words[1] == "red"; };
    const Instruction* bar = nullptr;
    int votes = 0;
    for (const Thread& t : b.threads) {
      if (!t.waits) continue;
      if (bar && bar != t.waits && (votes_at(*bar) || votes_at(*t.waits))) throw Error("votes at different barriers");
      bar = t.waits;
      votes += votes_at(*bar) && t.get(bar->operands[2]) != 0;
    }
    const bool result_is_count = bar->has("popc"), any = bar->has("or");
    const int vote = result_is_count ? votes : any ? votes != 0 : votes == b.at_barrier;
    for (Thread& t : b.threads) {
      if (!t.waits) continue;
      if (votes_at(*bar)) t.put(bar->operands[0], uint64_t(vote));
      wake(t);
    }
    b.at_barrier = 0;
    b.cache.barrier();
  }

  [[noreturn]] void fail(const Block& b, const std::string& why) const {
    std::string s = "ptx: " + kernel_.name + ", block " + std::to_string(b.index.x) + "." + std::to_string(b.index.y);
    s += ": " + why;
    const Instruction* last = nullptr;
    for (const Thread& t : b.threads) {
      if (t.waits && t.waits != last) s += "; thread " + std::to_string(t.index) + " at " + (last = t.waits)->text;
    }
    throw Error(s);
  }

  Kernel& kernel_;
  const Dim grid_, shape_;
  const size_t shared_;
  uint64_t random_;
  int64_t steps_left_;
};

}  // namespace ptx
