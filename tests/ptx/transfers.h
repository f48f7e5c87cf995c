// transfers.h: what passes between threads: loads, stores, atomics, copies, barriers, and the operations of a warp with its
// matrix tiles. find_run() names the function of every instruction.
#pragma once
#include "operations.h"

namespace ptx {

template <class T>
void load(Machine& m, Thread& t, const Instruction& i) {
  const Operand& from = i.operands[size_t(i.items)];
  if (t.get(from) % (sizeof(T) * uint64_t(i.items)) != 0) throw Error("misaligned vector");
  for (int n = 0; n < i.items; ++n) {
    const uint64_t address = t.get(from) + uint64_t(n) * sizeof(T);
    if (i.strong) t.block->cache.direct(address, sizeof(T));
    t.put(i.operands[size_t(n)], uint64_t(as<T>(m.load(t, i.space, address, sizeof(T)))));
  }
  if (i.acquires) t.block->cache.acquire();
}

template <class T>
void store(Machine& m, Thread& t, const Instruction& i) {
  const uint64_t to = t.get(i.operands[0]);
  if (to % (sizeof(T) * uint64_t(i.items)) != 0) throw Error("misaligned vector");
  if (i.releases) t.block->cache.release(t.index);
  for (int n = 0; n < i.items; ++n) {
    m.store(t, i.space, to + uint64_t(n) * sizeof(T), sizeof(T), t.get(i.operands[size_t(n) + 1]));
    if (i.strong) t.block->cache.direct(to + uint64_t(n) * sizeof(T), sizeof(T));
  }
}

template <class T>
T updated(const Instruction& i, T old, T by, T swap) {
  if (i.has("add")) return T(old + by);
  if (i.has("exch")) return by;
  if (i.has("cas")) return old == by ? swap : old;
  if (i.has("min")) return std::min(old, by);
  if (i.has("max")) return std::max(old, by);
  if constexpr (std::is_integral_v<T>) {
    if (i.has("and")) return old & by;
    if (i.has("or")) return old | by;
    if (i.has("xor")) return old ^ by;
  }
  throw Error("unknown atomic operation");
}

template <class T>
void atomic(Machine& m, Thread& t, const Instruction& i) {
  Cache& cache = t.block->cache;
  const size_t first = i.op == "atom" ? 1 : 0;  // red returns nothing
  const uint64_t address = t.get(i.operands[first]);
  if (i.releases) cache.release(t.index);
  void* place = m.on_chip(t, i.space, address, sizeof(T));
  if (place == nullptr) place = cache.direct(address, sizeof(T));
  T old;
  std::memcpy(&old, place, sizeof old);
  const uint64_t now =
      bits_of(updated(i, old, as<T>(t.get(i.operands[first + 1])), as<T>(t.get(i.operands[first + 2]))));
  std::memcpy(place, &now, sizeof old);
  if (first == 1) t.put(i.operands[0], bits_of(old));
  if (i.acquires) cache.acquire();
}

inline void fence(Machine&, Thread& t, const Instruction&) {
  t.block->cache.release(t.index);
  t.block->cache.acquire();
}

inline void copy(Machine& m, Thread& t, const Instruction& i) {
  if (i.has("commit_group")) {
    ++t.group;
  } else if (i.has("wait_group")) {
    std::vector<Copy> left;
    for (Copy& c : t.copies) {
      if (c.landed) continue;
      if (c.group < t.group - int(t.get(i.operands[0]))) {
        m.land(t, c);
      } else {
        left.push_back(c);
      }
    }
    t.copies = left;
  } else {
    const auto size = int(t.get(i.operands[2]));
    const bool shorter = i.operands.size() > 4 + 3;  // an operand says how much of it is not zeros
    const int bytes = shorter ? int(uint32_t(t.get(i.operands[3]))) : size;
    Copy c{t.get(i.operands[0]), t.get(i.operands[1]), bytes, size, t.group, false};
    if (c.to % uint64_t(size) != 0 || c.from % uint64_t(size) != 0) throw Error("misaligned copy");
    for (int b = 0; b < size; ++b)
      *static_cast<uint8_t*>(m.on_chip(t, 's', c.to + uint64_t(b), 1)) = uint8_t(m.random());
    t.copies.push_back(c);
  }
}

inline void branch(Machine&, Thread& t, const Instruction& i) { t.pc = i.target; }
inline void leave(Machine& m, Thread& t, const Instruction&) { m.leave(t); }
inline void barrier(Machine& m, Thread& t, const Instruction& i) { m.arrive(t, i); }
inline void nap(Machine&, Thread& t, const Instruction&) { t.yields = true; }
inline void trap(Machine&, Thread&, const Instruction&) { throw Error("trap"); }
inline void unknown(Machine&, Thread&, const Instruction&) {
  throw Error("the interpreter does not know this instruction");
}

// --- Operations of a warp. The mask is the last operand; matrix operations and barriers of all lanes have none.
inline uint32_t mask_of(const Thread& t, const Instruction& i) {
  const bool whole = i.op == "mma" || i.op == "ldmatrix";
  return whole ? 0xffffffffu : uint32_t(t.get(i.operands[i.operands.size() - 4 - 1]));
}
inline void meet(Machine& m, Thread& t, const Instruction& i) { m.meet(t, i, mask_of(t, i)); }

struct Warp {
  Thread* lanes;
  uint32_t mask;
  const Instruction& i;
  Warp(Thread& t, const Instruction& of)
      : lanes(&t.block->threads[size_t(t.index / kWarp * kWarp)]), mask(mask_of(t, of)), i(of) {}
  bool has(int lane) const { return mask >> lane & 1; }
  uint32_t get(int lane, size_t operand) const { return uint32_t(lanes[lane].get(i.operands[operand])); }
  void put(int lane, size_t operand, uint32_t v) const { lanes[lane].put(i.operands[operand], v); }
  template <class F>
  void each(F f) const {
    for (int l = 0; l < kWarp; ++l) {
      if (has(l)) f(l);
    }
  }
};

// d|p, a, b, c: lane l reads a of lane j, where p says that j lies in l's segment.
inline void shuffle(Machine&, Thread& t, const Instruction& i) {
  const Warp w(t, i);
  uint32_t values[kWarp];
  bool inside[kWarp];
  w.each([&](int l) {
    const int b = int(w.get(l, 3) & 31), c = int(w.get(l, 4)), segment = c >> 8 & 31;
    const int last = (l & segment) | (c & 31 & ~segment);
    const int j = i.has("up") ? l - b : i.has("down") ? l + b : i.has("bfly") ? l ^ b : (l & segment) | (b & ~segment);
    inside[l] = i.has("up") ? j >= last : j <= last;
    const int source = inside[l] ? j : l;
    if (!w.has(source)) throw Error("shfl reads a lane outside its mask");
    values[l] = w.get(source, 2);
  });
  w.each([&](int l) {
    w.put(l, 0, values[l]);
    w.put(l, 1, inside[l]);
  });
}

inline void vote(Machine&, Thread& t, const Instruction& i) {
  const Warp w(t, i);
  uint32_t ballot = 0;
  w.each([&](int l) { ballot |= uint32_t(w.get(l, 1) != 0) << l; });
  const uint32_t result = i.has("ballot") ? ballot : i.has("any") ? ballot != 0 : ballot == w.mask;
  w.each([&](int l) { w.put(l, 0, result); });
}

inline void match(Machine&, Thread& t, const Instruction& i) {
  const Warp w(t, i);
  const uint64_t bits = i.has("b64") ? ~uint64_t(0) : 0xffffffffu;
  uint32_t same[kWarp] = {};
  w.each([&](int l) {
    w.each([&](int j) {
      const bool equal = ((w.lanes[l].get(i.operands[1]) ^ w.lanes[j].get(i.operands[1])) & bits) == 0;
      same[l] |= uint32_t(equal) << j;
    });
  });
  w.each([&](int l) { w.put(l, 0, same[l]); });
}

template <class T>
void reduce(Machine&, Thread& t, const Instruction& i) {
  const Warp w(t, i);
  bool first = true;
  T all = 0;
  w.each([&](int l) {
    const T v = as<T>(w.get(l, 1));
    all = first ? v : updated(i, all, v, v);
    first = false;
  });
  w.each([&](int l) { w.put(l, 0, uint32_t(all)); });
}

inline void nothing(Machine&, Thread&, const Instruction&) {}

// Lanes 8 m to 8 m + 7 name the rows of the 8 x 8 matrix m; lane l gets row l / 4, columns 2 (l % 4) and the next.
inline void load_matrix(Machine& m, Thread& t, const Instruction& i) {
  const Warp w(t, i);
  uint16_t rows[4][8][8];
  for (int l = 0; l < 8 * i.items; ++l) {
    const uint64_t address = w.lanes[l].get(i.operands[size_t(i.items)]);
    if (address % 16 != 0) throw Error("misaligned row");
    for (int c = 0; c < 8; ++c) {
      rows[l / 8][l % 8][c] = uint16_t(m.load(w.lanes[l], 's', address + 2 * uint64_t(c), 2));
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    for (int n = 0; n < i.items; ++n) {
      const int r = l / 4, c = l % 4 * 2;
      const uint16_t low = i.has("trans") ? rows[n][c][r] : rows[n][r][c];
      const uint16_t high = i.has("trans") ? rows[n][c + 1][r] : rows[n][r][c + 1];
      w.put(l, size_t(n), uint32_t(high) << 16 | low);
    }
  }
}

// D = A B + C by tiles of 16 x K, K x 8 and 16 x 8. `wide`: elements in a register; `a` and `b` take one out of it.
template <int K, class Sum, class A, class B>
void multiply_tiles(const Warp& w, A a, B b) {
  constexpr int wide = K == 16 ? 2 : 4;
  Sum as_[16][K], bs[K][8], d[16][8];
  for (int l = 0; l < kWarp; ++l) {
    const int group = l / 4, place = l % 4;
    for (int e = 0; e < wide; ++e) {
      for (int n = 0; n < 4; ++n) {
        as_[group + n % 2 * 8][place * wide + n / 2 * (K / 2) + e] = a(w.get(l, size_t(4 + n)), e);
      }
      for (int n = 0; n < 2; ++n) bs[place * wide + n * (K / 2) + e][group] = b(w.get(l, size_t(8 + n)), e);
    }
    for (int n = 0; n < 4; ++n) {
      const uint32_t c = w.get(l, size_t(10 + n));
      d[group + n / 2 * 8][place * 2 + n % 2] = K == 16 ? Sum(as<float>(c)) : Sum(int32_t(c));
    }
  }
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      for (int k = 0; k < K; ++k) d[r][c] += as_[r][k] * bs[k][c];
    }
  }
  for (int l = 0; l < kWarp; ++l) {
    for (int n = 0; n < 4; ++n) {
      const Sum sum = d[l / 4 + n / 2 * 8][l % 4 * 2 + n % 2];
      w.put(l, size_t(n), K == 16 ? uint32_t(bits_of(float(sum))) : uint32_t(int64_t(sum)));
    }
  }
}

inline void multiply_bfloat16(Machine&, Thread& t, const Instruction& i) {
  const auto element = [](uint32_t v, int e) { return double(hn::from_bfloat16(uint16_t(v >> (16 * e)))); };
  multiply_tiles<16, double>(Warp(t, i), element, element);
}
inline void multiply_bytes(Machine&, Thread& t, const Instruction& i) {
  const auto element = [](bool is_signed) {
    return [is_signed](uint32_t v, int e) {
      return is_signed ? int64_t(int8_t(v >> (8 * e))) : int64_t(uint8_t(v >> (8 * e)));
    };
  };
  multiply_tiles<32, int64_t>(Warp(t, i), element(i.mods[6] == "s8"), element(i.mods[7] == "s8"));
}

inline Run find_run(const Instruction& i, Run* warp_run) {
  const std::string &op = i.op, type = i.mods.empty() ? "" : i.mods.back();
  if (op == "shfl") *warp_run = &shuffle;
  if (op == "vote") *warp_run = &vote;
  if (op == "match") *warp_run = &match;
  if (op == "bar" && i.has("warp")) *warp_run = &nothing;
  if (op == "redux") *warp_run = type == "s32" ? &reduce<int32_t> : &reduce<uint32_t>;
  if (op == "ldmatrix") *warp_run = &load_matrix;
  if (op == "mma" && i.has("m16n8k16") && i.has("bf16")) *warp_run = &multiply_bfloat16;
  if (op == "mma" && i.has("m16n8k32")) *warp_run = &multiply_bytes;
  if (*warp_run) return &meet;
  if (op == "bra") return &branch;
  if (op == "bar") return &barrier;
  if (op == "ret") return &leave;
  if (op == "trap") return &trap;
  if (op == "nanosleep") return &nap;
  if (op == "membar" || op == "fence") return &fence;
  if (op == "cp") return &copy;
  if (op == "ld") return with_type(plain_type(type), [](auto n) -> Run { return &load<decltype(n)>; });
  if (op == "st") return with_type(plain_type(type), [](auto n) -> Run { return &store<decltype(n)>; });
  if (op == "atom" || op == "red") return with_type(type, [](auto n) -> Run { return &atomic<decltype(n)>; });
  const Run run = arithmetic_run(i);
  return run ? run : &unknown;
}

}  // namespace ptx
