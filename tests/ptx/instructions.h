// instructions.h: what instructions do, by the words of the PTX ISA. decode() names the function of each.
#pragma once
#include "values.h"

namespace ptx {

inline void compute(Machine&, Thread& t, const Instruction& i) {
  const Operand* o = i.operands.data();
  const uint64_t x[4] = {t.get(o[1]), t.get(o[2]), t.get(o[3]), t.get(o[4])};
  t.put(o[0], i.value(i, x));
}

// mov of a vector of registers into one of their total width, and back.
inline void pack(Machine&, Thread& t, const Instruction& i) {
  const Type part{'b', i.type.bits / i.items};
  uint64_t v = 0;
  for (int n = 0; n < i.items; ++n) v |= read<uint64_t>(part, t.get(i.operands[size_t(n) + 1])) << (part.bits * n);
  t.put(i.operands[0], v);
}
inline void unpack(Machine&, Thread& t, const Instruction& i) {
  const Type part{'b', i.type.bits / i.items};
  const uint64_t v = t.get(i.operands[size_t(i.items)]);
  for (int n = 0; n < i.items; ++n) t.put(i.operands[size_t(n)], read<uint64_t>(part, v >> (part.bits * n)));
}

// --- Memory.

inline void check_aligned(uint64_t address, int bytes) {
  if (address % uint64_t(bytes) != 0) throw Error("misaligned vector, row or copy");
}

inline void load(Machine& m, Thread& t, const Instruction& i) {
  const int bytes = i.type.bits / 8;
  const uint64_t from = t.get(i.operands[size_t(i.items)]);
  check_aligned(from, bytes * i.items);
  for (int n = 0; n < i.items; ++n) {
    const uint64_t address = from + uint64_t(n * bytes);
    if (i.strong) t.block->cache.direct(address, bytes);
    const uint64_t v = m.load(t, i.space, address, bytes);
    t.put(i.operands[size_t(n)], i.type.kind == 's' ? uint64_t(read<int64_t>(i.type, v)) : v);
  }
  if (i.acquires) t.block->cache.acquire();
}

inline void store(Machine& m, Thread& t, const Instruction& i) {
  const int bytes = i.type.bits / 8;
  const uint64_t to = t.get(i.operands[0]);
  check_aligned(to, bytes * i.items);
  if (i.releases) t.block->cache.release(t.index);
  for (int n = 0; n < i.items; ++n) {
    m.store(t, i.space, to + uint64_t(n * bytes), bytes, t.get(i.operands[size_t(n) + 1]));
    if (i.strong) t.block->cache.direct(to + uint64_t(n * bytes), bytes);
  }
}

inline void atomic(Machine& m, Thread& t, const Instruction& i) {
  Cache& cache = t.block->cache;
  const uint64_t address = t.get(i.operands[1]);
  const int bytes = i.type.bits / 8;
  if (i.releases) cache.release(t.index);
  void* place = m.on_chip(t, i.space, address, bytes);
  if (place == nullptr) place = cache.direct(address, bytes);
  uint64_t old = 0;
  std::memcpy(&old, place, size_t(bytes));
  const uint64_t now = i.value(i, {old, t.get(i.operands[2]), t.get(i.operands[3]), 0});
  std::memcpy(place, &now, size_t(bytes));
  t.put(i.operands[0], old);
  if (i.acquires) cache.acquire();
}

// cp.async: until it lands its place holds garbage. An operand more says how much of it is not zeros.
inline void copy(Machine& m, Thread& t, const Instruction& i) {
  const auto size = int(t.get(i.operands[2]));
  const Copy c{t.get(i.operands[0]), t.get(i.operands[1]), i.items == 3 ? int(t.get(i.operands[3])) : size, size,
               t.group};
  check_aligned(c.to | c.from, size);
  for (int b = 0; b < size; ++b) m.store(t, 's', c.to + uint64_t(b), 1, m.random());
  t.copies.push_back(c);
}

// --- Operations of a warp. The mask is the last operand; matrix operations, which are of all lanes, have none.

inline void meet(Machine& m, Thread& t, const Instruction& i) {
  const bool whole = i.words[0] == "mma" || i.words[0] == "ldmatrix";
  m.meet(t, i, whole ? ~0u : uint32_t(t.get(i.operands[size_t(i.items)])));
}

// d|p, a, b, c: lane l reads a of lane j, where p says that j lies in l's segment.
inline void shuffle(Machine&, const Warp& w, const Instruction& i) {
  const std::string& how = i.words[2];
  uint64_t values[kWarp];
  bool inside[kWarp];
  w.each([&](int l, Thread& t) {
    const int b = int(t.get(i.operands[3]) & 31), c = int(t.get(i.operands[4])), segment = c >> 8 & 31;
    const int last = (l & segment) | (c & 31 & ~segment);
    const int j = how == "up" ? l - b : how == "down" ? l + b : how == "bfly" ? l ^ b : (l & segment) | (b & ~segment);
    inside[l] = how == "up" ? j >= last : j <= last;
    const int source = inside[l] ? j : l;
    if (!w.has(source)) throw Error("shfl reads a lane outside its mask");
    values[l] = w.get(source, i.operands[2]);
  });
  w.each([&](int l, Thread& t) {
    t.put(i.operands[0], values[l]);
    t.put(i.operands[1], inside[l]);
  });
}

inline void vote(Machine&, const Warp& w, const Instruction& i) {
  const std::string& how = i.words[2];
  uint32_t ballot = 0;
  w.each([&](int l, Thread& t) { ballot |= uint32_t(t.get(i.operands[1]) != 0) << l; });
  const uint32_t result = how == "ballot" ? ballot : how == "any" ? ballot != 0 : ballot == w.mask;
  w.each([&](int, Thread& t) { t.put(i.operands[0], result); });
}

inline void match(Machine&, const Warp& w, const Instruction& i) {
  const auto number = [&](int l) { return read<uint64_t>(i.type, w.get(l, i.operands[1])); };
  w.each([&](int l, Thread& t) {
    uint32_t same = 0;
    w.each([&](int j, Thread&) { same |= uint32_t(number(j) == number(l)) << j; });
    t.put(i.operands[0], same);
  });
}

inline void reduce(Machine&, const Warp& w, const Instruction& i) {
  uint64_t all = w.get(__builtin_ctz(w.mask), i.operands[1]);
  w.each([&](int l, Thread& t) {
    if ((w.mask & ((1u << l) - 1)) != 0) all = i.value(i, {all, t.get(i.operands[1]), 0, 0});
  });
  w.each([&](int, Thread& t) { t.put(i.operands[0], all); });
}

// Lanes 8 m to 8 m + 7 name the rows of the 8 x 8 matrix m; lane l gets row l / 4, columns 2 (l % 4) and the next.
inline void load_matrix(Machine& m, const Warp& w, const Instruction& i) {
  const bool transposed = i.has("trans");
  for (int n = 0; n < i.items; ++n) {
    w.each([&](int l, Thread& t) {
      uint32_t pair = 0;
      for (int e = 0; e < 2; ++e) {
        const int row = l / 4, column = l % 4 * 2 + e;
        const uint64_t begin = w.get(8 * n + (transposed ? column : row), i.operands[size_t(i.items)]);
        check_aligned(begin, 16);
        pair |= uint32_t(m.load(t, 's', begin + 2 * uint64_t(transposed ? row : column), 2)) << (16 * e);
      }
      t.put(i.operands[size_t(n)], pair);
    });
  }
}

// D = A B + C by tiles of 16 x K, K x 8 and 16 x 8: bfloat16 with sums in float (K = 16), or bytes and int32 (K = 32).
// In doubles, which hold the sums of bytes exactly.
inline void multiply_tiles(Machine&, const Warp& w, const Instruction& i) {
  const bool halves = i.has("m16n8k16");
  const int k_all = halves ? 16 : 32, wide = halves ? 2 : 4;  // elements of a register
  const auto element = [&](int lane, int operand, const std::string& type, int e) {
    const uint64_t v = w.get(lane, i.operands[size_t(operand)]) >> (32 / wide * e);
    return halves ? double(hn::from_bfloat16(uint16_t(v))) : type == "s8" ? double(int8_t(v)) : double(uint8_t(v));
  };
  double a[16][32], b[32][8];
  w.each([&](int l, Thread&) {
    const int group = l / 4, place = l % 4 * wide;
    for (int e = 0; e < wide; ++e) {
      for (int n = 0; n < 4; ++n)
        a[group + n % 2 * 8][place + n / 2 * k_all / 2 + e] = element(l, 4 + n, i.words[7], e);
      for (int n = 0; n < 2; ++n) b[place + n * k_all / 2 + e][group] = element(l, 8 + n, i.words[8], e);
    }
  });
  w.each([&](int l, Thread& t) {
    for (int n = 0; n < 4; ++n) {
      const uint64_t c = t.get(i.operands[size_t(10 + n)]);
      double sum = halves ? read<float>(i.type, c) : double(int32_t(c));
      for (int k = 0; k < k_all; ++k) sum += a[l / 4 + n / 2 * 8][k] * b[k][l % 4 * 2 + n % 2];
      t.put(i.operands[size_t(n)], halves ? written(i.type, float(sum)) : written({'s', 32}, int64_t(sum)));
    }
  });
}

// --- Which function is whose.

using Run = decltype(Instruction::run);

inline Run run_of(const Instruction& i) {
  const std::string &op = i.words[0], second = i.words[std::min<size_t>(2, i.words.size() - 1)];
  if (op == "bra") return [](Machine&, Thread& t, const Instruction& n) { t.pc = n.target; };
  if (op == "bar") return [](Machine& m, Thread& t, const Instruction& n) { m.arrive(t, n); };
  if (op == "ret") return [](Machine& m, Thread& t, const Instruction&) { m.leave(t); };
  if (op == "nanosleep") return [](Machine&, Thread& t, const Instruction&) { t.yields = true; };
  if (op == "trap") return [](Machine&, Thread&, const Instruction&) { throw Error("trap"); };
  if (op == "membar" || op == "fence") {
    return [](Machine&, Thread& t, const Instruction&) {
      t.block->cache.release(t.index);
      t.block->cache.acquire();
    };
  }
  if (op == "cp" && second == "commit_group") return [](Machine&, Thread& t, const Instruction&) { ++t.group; };
  if (op == "cp" && second == "wait_group") {
    return [](Machine& m, Thread& t, const Instruction& n) {
      m.land(t, [&](const Copy& c) { return c.group < t.group - int(t.get(n.operands[0])); });
    };
  }
  if (op == "cp") return &copy;
  if (op == "ld") return &load;
  if (op == "st") return &store;
  if (op == "atom") return &atomic;
  if (op == "mov" && i.items > 1) return i.unpacks ? &unpack : &pack;
  if (i.value) return &compute;
  return [](Machine&, Thread&, const Instruction&) { throw Error("the interpreter does not know this instruction"); };
}

inline decltype(Instruction::warp_run) warp_run_of(const Instruction& i) {
  const std::string& op = i.words[0];
  if (op == "shfl") return &shuffle;
  if (op == "vote") return &vote;
  if (op == "match") return &match;
  if (op == "redux") return &reduce;
  if (op == "ldmatrix") return &load_matrix;
  if (op == "mma") return &multiply_tiles;
  if (i.name == "bar.warp.sync") return [](Machine&, const Warp&, const Instruction&) {};
  return nullptr;
}

inline void decode(Instruction* i) {
  const std::string& op = i->words[0];
  if (i->has("wide")) i->to.bits *= 2;
  if (op == "setp") i->to = {'p', 1};
  if (op == "cvt") i->to = type_of(i->words[i->words.size() - 2]);
  const bool from_half = i->type.kind == 'f' && i->type.bits == 16, plain = i->type.kind != 'f' && i->to.kind != 'f';
  i->value = value_of(from_half ? i->name + ".f16" : op == "cvt" && plain ? "mov" : i->name, i->type);
  for (const std::string& word : i->words) {  // the operation of an atomic or of a reduction
    if (!i->value && (op == "atom" || op == "redux")) i->value = value_of(word, i->type);
  }
  i->warp_run = warp_run_of(*i);
  i->run = i->warp_run ? &meet : run_of(*i);
}

}  // namespace ptx
