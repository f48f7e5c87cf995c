// memory.h: global memory as one block sees it: weak. A block's plain stores reach the others at a random time, at the
// latest when it releases; its plain loads may return what was there before, until it acquires.
//
// Within the block everything is seen at once. That is a write-back cache of 32-byte lines, each byte with a dirty bit.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <vector>

#include "program.h"

namespace ptx {

// What cudaMalloc gave out: begin to bytes. Everything else is out of bounds.
inline std::map<uint64_t, size_t>& allocations() {
  static std::map<uint64_t, size_t> all;
  return all;
}

class Cache {
 public:
  Cache() { all().push_back(this); }
  ~Cache() { std::erase(all(), this); }
  Cache(const Cache&) = delete;

  uint64_t load(uint64_t address, int bytes) {
    uint64_t value = 0;
    std::memcpy(&value, line_of(address, bytes).bytes + address % kLine, size_t(bytes));
    return value;
  }

  void store(uint64_t address, int bytes, uint64_t value, int thread) {
    Line& line = line_of(address, bytes);
    std::memcpy(line.bytes + address % kLine, &value, size_t(bytes));
    line.dirty |= mask(address, bytes);
    stores_.push_back({address, bytes, thread, barriers_});
  }

  // The memory itself, for atomics and strong accesses: this block's own stores to the place come first.
  void* direct(uint64_t address, int bytes) {
    Line& line = line_of(address, bytes);
    write_back(line, mask(address, bytes));
    line.age = 0;
    return reinterpret_cast<void*>(address);
  }

  // Shows the others what `thread` has stored, and what all stored before the block's last barrier.
  void release(int thread) {
    std::erase_if(stores_, [&](const Store& s) {
      const bool shown = s.thread == thread || s.barriers < barriers_;
      if (shown) write_back(s);
      return shown;
    });
  }
  void release_all() {
    barrier();
    release(-1);
  }
  void release_any(uint64_t random) {
    if (stores_.empty()) return;
    std::swap(stores_[random % stores_.size()], stores_.back());
    write_back(stores_.back());
    stores_.pop_back();
  }

  void acquire() { ++age_; }
  void barrier() { ++barriers_; }

 private:
  static constexpr uint64_t kLine = 32;
  struct Line {
    uint64_t begin = 0;  // 0: empty
    uint32_t dirty = 0, valid = 0;
    uint64_t age = 0;
    uint8_t bytes[kLine];
  };
  struct Store {
    uint64_t address;
    int bytes, thread;
    long barriers;
  };

  static std::vector<Cache*>& all() {
    static std::vector<Cache*> caches;
    return caches;
  }

  static uint32_t mask(uint64_t address, int bytes) { return ((1u << bytes) - 1) << address % kLine; }
  Line& slot(uint64_t address) { return lines_[address / kLine * 0x9e3779b97f4a7c15u >> 55]; }

  void write_back(Line& line, uint32_t which) {
    if ((line.dirty & which) == 0) return;
    for (Cache* other : all()) {  // may have read the line early, as hardware does, and has what was there before
      if (other != this && other->slot(line.begin).dirty == 0 && ++early_ % 2 == 0) other->line_of(line.begin, 0);
    }
    for (uint32_t left = line.dirty & which; left != 0; left &= left - 1) {
      const int b = __builtin_ctz(left);
      reinterpret_cast<uint8_t*>(line.begin)[b] = line.bytes[b];
    }
    line.dirty &= ~which;
  }
  void write_back(const Store& s) {
    Line& line = slot(s.address);
    if (line.begin == s.address / kLine * kLine) write_back(line, mask(s.address, s.bytes));
  }

  Line& line_of(uint64_t address, int bytes) {
    const uint64_t begin = address / kLine * kLine;
    Line& line = slot(begin);
    if (line.begin != begin) {
      write_back(line, ~0u);
      line.begin = begin;
      line.valid = allocated(begin);
      line.age = 0;
    }
    if (line.age != age_) {
      line.age = age_;
      for (uint32_t left = line.valid & ~line.dirty; left != 0; left &= left - 1) {
        const int b = __builtin_ctz(left);
        line.bytes[b] = reinterpret_cast<uint8_t*>(begin)[b];
      }
    }
    if (bytes != 0 && address % uint64_t(bytes) != 0) throw Error("misaligned access");
    if (mask(address, bytes) & ~line.valid) throw Error("access outside of every buffer");
    return line;
  }

  // The line's bytes of a buffer, which begins on a line.
  static uint32_t allocated(uint64_t begin) {
    auto next = allocations().upper_bound(begin);
    if (next == allocations().begin()) return 0;
    const auto [first, bytes] = *--next;
    const uint64_t here = begin - first < bytes ? first + bytes - begin : 0;
    return here >= kLine ? ~0u : (1u << here) - 1;
  }

  std::array<Line, 512> lines_;
  std::vector<Store> stores_;
  uint64_t age_ = 1;
  long barriers_ = 0;
  unsigned early_ = 0;
};

}  // namespace ptx
