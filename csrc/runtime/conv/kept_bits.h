// kept_bits.h: which weights are kept and which of them are negative.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace hiddennet::runtime {

// Bit i % 64 of word i / 64: weight i is not 0; it is below 0.
class KeptBits {
 public:
  explicit KeptBits(int64_t most) : kept_(std::size_t(most + 63) / 64), minus_(kept_.size()), without_(kept_.size()) {}

  void read(const float* weights, int64_t n);
  // f(i, negative) for each that is kept, in their order.
  template <class F>
  void each(const F& f) const {
    for (int64_t w = 0; w < words_; ++w) {
      for (uint64_t left = kept_[std::size_t(w)]; left != 0; left &= left - 1) {
        const int bit = __builtin_ctzll(left);
        f(std::size_t(w * 64 + bit), (minus_[std::size_t(w)] >> bit & 1) != 0);
      }
    }
  }
  // Of those above 0, or below, that are among `only`, bits as these: their numbers in `from`, in order, to `to`, behind
  // which 32 more may be written; how many. only: null for all.
  std::size_t pick(bool negative, const uint64_t* only, const uint16_t* from, uint16_t* to);

 private:
  int64_t words_ = 0;
  std::vector<uint64_t> kept_, minus_, without_;
};

}  // namespace hiddennet::runtime
