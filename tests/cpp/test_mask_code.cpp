// test_mask_code.cpp: codes of masks come back, and bytes that are none are refused within their bounds.
#include "device.h"
#include "ops/mask_code/mask_code.h"

using namespace hn;
using hn::test::Random;

namespace {

// By a byte's number of ones: of a density of a half, and of next to none.
const int64_t kEven[9] = {256, 256, 256, 256, 256, 256, 256, 256, 256};
const int64_t kSparse[9] = {65536 - 255, 1, 1, 1, 1, 1, 1, 1, 1};

std::vector<uint8_t> bytes(Random& random, int64_t count, int zeros) {
  std::vector<uint8_t> v(size_t(count), 0);
  for (uint8_t& x : v) {
    if (random.bits() % 16 >= uint32_t(zeros)) x = uint8_t(random.bits());
  }
  return v;
}

TEST(codes_come_back_and_other_bytes_are_refused) {
  Random random(3);
  for (const int64_t* frequencies : {kEven, kSparse}) {
    MaskCode code;
    CHECK(cpu::make_mask_code(frequencies, code));
    for (const int64_t count : {0, 1, 3, 4, 5, 1000, 32767, 32768, 40001}) {
      for (const int zeros : {0, 8, 15, 16}) {
        const std::vector<uint8_t> want = bytes(random, count, zeros);
        std::vector<uint8_t> coded = cpu::encode_mask(code, want.data(), count), got(size_t(count), 7);
        CHECK(cpu::decode_mask(code, coded.data(), int64_t(coded.size()), got.data(), count));
        CHECK(got == want);
        for (int64_t size = 0; size < int64_t(coded.size()); size += 1 + int64_t(coded.size()) / 9) {
          const std::vector<uint8_t> cut(coded.begin(), coded.begin() + size);
          CHECK(!cpu::decode_mask(code, cut.data(), size, got.data(), count));
        }
        for (int i = 0; i < 20; ++i) {  // whatever comes of it, it stays within its memory
          for (uint8_t& x : coded) x = uint8_t(random.bits());
          if (cpu::decode_mask(code, coded.data(), int64_t(coded.size()), got.data(), count)) CHECK(count == 0);
        }
      }
    }
  }
}

TEST(frequencies_that_are_none_are_refused) {
  MaskCode code;
  const int64_t none[9] = {0, 1, 1, 1, 1, 1, 1, 1, 1}, over[9] = {65536, 1, 1, 1, 1, 1, 1, 1, 1};
  CHECK(!cpu::make_mask_code(none, code));
  CHECK(!cpu::make_mask_code(over, code));
}

}  // namespace
