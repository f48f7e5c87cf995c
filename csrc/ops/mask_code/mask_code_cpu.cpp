// mask_code_cpu.cpp: range asymmetric numeral systems over bytes, with states of 64 bits.
#include <cstring>

#include "mask_code.h"

namespace hn {
namespace cpu {
namespace {

constexpr uint64_t kLow = uint64_t(1) << 31;  // states are in [kLow, kLow << 32)
constexpr uint64_t kSlots = uint64_t(1) << kCodeBits;
constexpr int64_t kStateBytes = 8, kWordBytes = 4;

int ones(int byte) {
  int n = 0;
  for (; byte != 0; byte &= byte - 1) ++n;
  return n;
}

}  // namespace

bool make_mask_code(const int64_t* frequencies, MaskCode& code) {
  uint64_t sum = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const int64_t frequency = frequencies[ones(byte)];
    if (frequency < 1 || frequency > int64_t(kSlots)) return false;
    code.frequency[byte] = uint32_t(frequency);
    code.below[byte] = uint32_t(sum);
    sum += uint64_t(frequency);
  }
  return sum == kSlots;
}

std::vector<uint8_t> encode_mask(const MaskCode& code, const uint8_t* bits, int64_t count) {
  const int lanes = code_lanes(count);
  std::vector<uint64_t> state(size_t(lanes), kLow);
  std::vector<uint32_t> words;
  for (int64_t i = count - 1; i >= 0; --i) {
    uint64_t& x = state[size_t(i % lanes)];
    const uint64_t frequency = code.frequency[bits[i]];
    if (x >= (kLow >> kCodeBits << 32) * frequency) {
      words.push_back(uint32_t(x));
      x >>= 32;
    }
    x = (x / frequency << kCodeBits) + x % frequency + code.below[bits[i]];
  }
  const size_t states = state.size() * size_t(kStateBytes);
  std::vector<uint8_t> coded(states + words.size() * size_t(kWordBytes));
  std::memcpy(coded.data(), state.data(), states);
  uint8_t* out = coded.data() + states;
  for (size_t i = words.size(); i > 0; --i, out += kWordBytes) std::memcpy(out, &words[i - 1], size_t(kWordBytes));
  return coded;
}

bool decode_mask(const MaskCode& code, const uint8_t* coded, int64_t size, uint8_t* bits, int64_t count) {
  const int lanes = code_lanes(count);
  const int64_t states = lanes * kStateBytes;
  if (size < states || (size - states) % kWordBytes != 0) return false;
  uint64_t state[kCodeLanes] = {kLow, kLow, kLow, kLow};
  std::memcpy(state, coded, size_t(states));
  for (const uint64_t x : state) {
    if (x < kLow || x >= kLow << 32) return false;
  }
  std::vector<uint8_t> byte_of(kSlots);
  for (int byte = 0; byte < 256; ++byte) {
    std::memset(byte_of.data() + code.below[byte], byte, code.frequency[byte]);
  }
  const uint8_t *next = coded + states, *const end = coded + size;
  const auto step = [&](uint64_t& x, uint8_t& out) {
    const uint32_t slot = uint32_t(x) & uint32_t(kSlots - 1);
    const uint8_t byte = byte_of[slot];
    out = byte;
    x = code.frequency[byte] * (x >> kCodeBits) + slot - code.below[byte];
    if (x < kLow) {
      if (next == end) return false;
      uint32_t word;
      std::memcpy(&word, next, size_t(kWordBytes));
      next += kWordBytes;
      x = x << 32 | word;
    }
    return true;
  };
  int64_t i = 0;
  for (; lanes == kCodeLanes && i + kCodeLanes <= count; i += kCodeLanes) {
    bool whole = true;
    for (int lane = 0; lane < kCodeLanes; ++lane) whole &= step(state[lane], bits[i + lane]);
    if (!whole) return false;
  }
  for (; i < count; ++i) {
    if (!step(state[i % lanes], bits[i])) return false;
  }
  bool at_end = next == end;
  for (const uint64_t x : state) at_end &= x == kLow;
  return at_end;
}

}  // namespace cpu
}  // namespace hn
