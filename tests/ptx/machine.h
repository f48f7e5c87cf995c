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
};

struct Copy {  // cp.async under way
  uint64_t to, from;
  int bytes, size;  // the rest of size is zeros
  int group;
  bool landed;
};

struct Block;
struct Thread {
  std::vector<uint64_t> r;  // registers
  size_t pc = 0;
  const Instruction* waits = nullptr;  // at a barrier or for its warp
  uint32_t meets = 0;                  // lanes it waits for
  bool done = false, yields = false;
  int index = 0, group = 0;
  std::vector<Copy> copies;
  Block* block = nullptr;

  uint64_t get(const Operand& o) const { return r[size_t(o.reg)] + o.number; }
  void put(const Operand& o, uint64_t v) { r[size_t(o.reg)] = v; }
};

struct Block {
  Dim index;
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
        most_steps_(most_steps) {}

  void run() {
    const uint64_t resident = 1 + random() % 6, burst = random() % 2 ? 8 : 64;
    std::vector<uint64_t> order(grid_.count());
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    for (uint64_t i = order.size(); i-- > 1;) std::swap(order[i], order[random() % (i + 1)]);
    std::vector<std::unique_ptr<Block>> blocks;
    for (size_t next = 0; next < order.size() || !blocks.empty();) {
      while (blocks.size() < resident && next < order.size()) blocks.push_back(start(order[next++]));
      const size_t chosen = random() % blocks.size();
      Block& b = *blocks[chosen];
      if (b.alive == 0) {
        b.cache.release_all();
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

  // Where a thread reads and writes. kind: of the state space, 's' for shared, 'p' for parameters, else global or any.
  uint64_t load(Thread& t, char kind, uint64_t address, int bytes) {
    if (void* place = on_chip(t, kind, address, bytes)) {
      uint64_t value = 0;
      std::memcpy(&value, place, size_t(bytes));
      return value;
    }
    return t.block->cache.load(address, bytes);
  }
  void store(Thread& t, char kind, uint64_t address, int bytes, uint64_t value) {
    if (void* place = on_chip(t, kind, address, bytes)) {
      std::memcpy(place, &value, size_t(bytes));
    } else {
      t.block->cache.store(address, bytes, value, t.index);
    }
  }
  // Shared memory or parameters; null: global memory.
  void* on_chip(Thread& t, char kind, uint64_t address, int bytes) {
    std::vector<uint8_t>& shared = t.block->shared;
    uint64_t begin = 0, size = shared.size();
    uint8_t* memory = shared.data();
    if (address >> 56 == kSharedWindow >> 56) {
      begin = kSharedWindow;
    } else if (kind != 's') {
      begin = uint64_t(kernel_.arguments.data());
      size = kernel_.arguments.size();
      memory = kernel_.arguments.data();
      if (kind != 'p' && address - begin >= size) return nullptr;
    }
    if (address % uint64_t(bytes) != 0) throw Error("misaligned access");
    if (address - begin + uint64_t(bytes) > size) throw Error("access outside of shared memory");
    return memory + (address - begin);
  }

  void land(Thread& t, Copy& c) {
    c.landed = true;
    for (int b = 0; b < c.size; ++b) {
      *static_cast<uint8_t*>(on_chip(t, 's', c.to + uint64_t(b), 1)) =
          b < c.bytes ? uint8_t(t.block->cache.load(c.from + uint64_t(b), 1)) : 0;
    }
  }

  void leave(Thread& t) {
    for (Copy& c : t.copies) {
      if (!c.landed) land(t, c);
    }
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
    Block& b = *t.block;
    Thread* lanes = &b.threads[size_t(t.index / kWarp * kWarp)];
    const int here = int(b.threads.size()) - t.index / kWarp * kWarp;
    if (!(mask >> (t.index % kWarp) & 1)) throw Error("a lane that its own mask does not name");
    t.waits = &i;
    t.meets = mask;
    for (int l = 0; l < kWarp; ++l) {
      if (!(mask >> l & 1)) continue;
      if (l >= here || lanes[l].done) throw Error("the mask names a lane that is not there");
      if (lanes[l].waits != &i) return;
      if (lanes[l].meets != mask) throw Error("lanes of one meeting name different masks");
    }
    i.warp_run(*this, t, i);
    for (int l = 0; l < kWarp; ++l) {
      if (mask >> l & 1) wake(lanes[l]);
    }
  }

 private:
  std::unique_ptr<Block> start(uint64_t n) {
    auto b = std::make_unique<Block>();
    b->index = {unsigned(n % grid_.x), unsigned(n / grid_.x % grid_.y), unsigned(n / (uint64_t(grid_.x) * grid_.y))};
    b->shared.resize(shared_);
    for (uint8_t& byte : b->shared) byte = uint8_t(random());
    b->threads.resize(shape_.count());
    b->alive = int(b->threads.size());
    for (int i = 0; i < b->alive; ++i) {
      Thread& t = b->threads[size_t(i)];
      t.r.assign(size_t(kernel_.registers), 0xdeadbeefdeadbeefu);
      t.r[kZero] = 0;
      t.index = i;
      t.block = b.get();
      const unsigned u = unsigned(i);
      const Dim thread{u % shape_.x, u / shape_.x % shape_.y, u / (shape_.x * shape_.y)};
      for (const auto& s : kernel_.specials) t.r[size_t(s.second)] = special(s.first, thread, b->index);
      b->ready.push_back(i);
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
    for (Copy& c : t.copies) {
      if (!c.landed && random() % 8 == 0) land(t, c);
    }
    while (count-- > 0 && !t.waits && !t.done && !t.yields) {
      const Instruction& i = kernel_.code[t.pc++];
      if (i.guard != kZero && (t.r[size_t(i.guard)] != 0) == i.unless) continue;
      try {
        // whoever waits is not ready; a meeting or barrier that this instruction ends makes it ready again
        if (i.stops) unready(b, place);
        i.run(*this, t, i);
        if (i.stops) break;
      } catch (const Error& e) {
        throw Error("ptx: " + kernel_.name + ", block " + std::to_string(b.index.x) + "." + std::to_string(b.index.y) +
                    ", thread " + std::to_string(t.index) + ", " + i.text + ": " + e.what());
      }
      ++steps_;
      if (steps_ > most_steps_) fail(b, "too many steps: an endless wait?");
    }
  }

  void unready(Block& b, size_t place) {
    b.ready[place] = b.ready.back();
    b.ready.pop_back();
  }

  void wake(Thread& t) {
    t.waits = nullptr;
    t.block->ready.push_back(t.index);
  }

  void open_barrier(Block& b) {
    if (b.at_barrier == 0 || b.at_barrier < b.alive) return;
    const Instruction* first = nullptr;
    uint64_t votes = 0;
    for (Thread& t : b.threads) {
      if (!t.waits) continue;
      const bool votes_here = t.waits->has("red");
      if (first && first != t.waits && (votes_here || first->has("red"))) throw Error("votes at different barriers");
      first = t.waits;
      votes += votes_here && t.get(t.waits->operands[2]) != 0;
    }
    for (Thread& t : b.threads) {
      if (!t.waits) continue;
      if (first->has("popc")) t.put(first->operands[0], votes);
      if (first->has("or")) t.put(first->operands[0], votes != 0);
      if (first->has("and")) t.put(first->operands[0], votes == uint64_t(b.at_barrier));
      wake(t);
    }
    b.at_barrier = 0;
    b.cache.barrier();
  }

  [[noreturn]] void fail(const Block& b, const std::string& why) const {
    std::string s = "ptx: " + kernel_.name + ", block " + std::to_string(b.index.x) + ": " + why;
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
  const int64_t most_steps_;
  int64_t steps_ = 0;
};

}  // namespace ptx
