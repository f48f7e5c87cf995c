// test_conv_axis.cpp: the index maps of masked_conv: phases and taps of an axis, places in a tile.
#include <vector>

#include "check.h"
#include "ops/masked_conv/conv_axis.cuh"
#include "ops/masked_conv/conv_gemm.cuh"

namespace hn {
namespace test {

// Every pair (written, kernel position) that reaches a read coordinate belongs to one phase and one
// tap, and only those.
TEST(phases_are_the_convolution) {
  for (int stride = 1; stride <= 4; ++stride) {
    for (int dilation = 1; dilation <= 4; ++dilation) {
      for (int padding = 0; padding <= 3; ++padding) {
        for (int kernel = 1; kernel <= 4; ++kernel) {
          for (int size : {1, 2, 5, 8}) {
            const int reach = size + 2 * padding - dilation * (kernel - 1);
            if (reach < 1) continue;
            const int outputs = (reach - 1) / stride + 1;
            std::vector<int> want(size_t(size * kernel), -1), got = want;
            for (int o = 0; o < outputs; ++o) {
              for (int k = 0; k < kernel; ++k) {
                const int h = o * stride - padding + k * dilation;
                if (h >= 0 && h < size) want[size_t(h * kernel + k)] = o;
              }
            }
            const ConvAxis axis = {kernel, stride, padding, dilation, outputs, size};
            for (int phase = 0; phase < gradient_phases(axis); ++phase) {
              const AxisPhase a = gradient_phase(axis, phase);
              for (int q = 0; q < a.count; ++q) {
                for (int j = 0; j < a.taps; ++j) {
                  const int from = a.read_first + q * a.read_step + j * a.tap_step;
                  if (from < 0 || from >= a.read_size) continue;
                  const int h = a.write_first + q * a.write_step, k = a.kernel_first + j * a.kernel_step;
                  CHECK(h < size && k < kernel);
                  CHECK_EQ(got[size_t(h * kernel + k)], -1);
                  got[size_t(h * kernel + k)] = from;
                }
              }
            }
            CHECK_EQ(got, want);
          }
        }
      }
    }
  }
}

// 16-byte chunks of a tile: a permutation, and the eight rows that one ldmatrix phase reads lie in
// different banks.
template <int kWidth>
void check_tile_offset() {
  std::vector<bool> seen(size_t(32 * kWidth));
  for (int row = 0; row < 32; ++row) {
    for (int column = 0; column < kWidth; ++column) {
      const auto at = size_t(cuda::tile_offset<kWidth>(row, column));
      CHECK(at < seen.size() && !seen[at]);
      seen[at] = true;
    }
    for (int other = row / 8 * 8; other < row; ++other) {
      for (int column = 0; column < kWidth; column += 8) {
        CHECK(cuda::tile_offset<kWidth>(row, column) / 8 % 8 != cuda::tile_offset<kWidth>(other, column) / 8 % 8);
      }
    }
  }
}

TEST(tiles_have_no_bank_conflicts) {
  check_tile_offset<32>();
  check_tile_offset<64>();
}

}  // namespace test
}  // namespace hn
