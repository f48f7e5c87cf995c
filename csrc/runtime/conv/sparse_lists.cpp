// sparse_lists.cpp: how many channels a chunk has.
#include "sparse_lists.h"

#include <unistd.h>

namespace hiddennet::runtime {
namespace {

int64_t first_level_bytes() {
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  static const int64_t bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  if (bytes > 0) return std::min<int64_t>(bytes, 64 << 10);
#endif
  return 32 << 10;
}

}  // namespace

int32_t chunk_channels(const ConvShape& s, const SparseLoops& loops, int64_t slots) {
  if (slots * (loops.lanes / 2) > 0xffff) return 0;
  const int64_t ins = s.in_channels / s.groups, bytes = slots * loops.lanes * int64_t(sizeof(float));
  const int64_t most = std::max<int64_t>(1, std::min(ins, first_level_bytes() * 4 / 5 / bytes));
  const int64_t chunks = (ins + most - 1) / most, channels = (ins + chunks - 1) / chunks;
  return channels * s.kernel_h * s.kernel_w > 0xffff ? 0 : int32_t(channels);
}

std::string sparse_name(const char* lanes, bool is_signed, const SparseLoops& loops) {
  return std::string("sparse ") + lanes + (is_signed ? " signed " : " valued ") +
         (loops.lanes == 16  ? "avx512"
          : loops.lanes == 8 ? "avx2"
                             : "plain");
}

}  // namespace hiddennet::runtime
