// mask_code.h: packed masks in as many bits as their density needs: bytes coded by range asymmetric numeral systems
// (Duda, arXiv 1311.2540), a byte's probability being that of its number of ones.
#pragma once
#include <cstdint>
#include <vector>

namespace hn {

constexpr int kCodeBits = 16;  // of a probability
constexpr int kCodeLanes = 4;  // states that take turns, so that their steps overlap

// Of so many bytes: a state's own bytes would be much of a short code.
inline int code_lanes(int64_t count) { return count < 32768 ? 1 : kCodeLanes; }

struct MaskCode {
  uint32_t frequency[256];  // of each byte, at least 1 each, 2^16 in all
  uint32_t below[256];      // of all bytes before it
};

namespace cpu {
// frequencies: of a byte with so many ones, 9 of them. False where these are none.
bool make_mask_code(const int64_t* frequencies, MaskCode& code);
// The states as decoding begins, 8 bytes each, then words of 4 bytes.
std::vector<uint8_t> encode_mask(const MaskCode& code, const uint8_t* bits, int64_t count);
// False where the bytes are not what encode_mask writes for as many.
bool decode_mask(const MaskCode& code, const uint8_t* coded, int64_t size, uint8_t* bits, int64_t count);
}  // namespace cpu

}  // namespace hn
