// base_kernels.cu: makes nvcc compile every word of csrc/base for every architecture, through
// kernels of the tests.
#include "base/dtype.h"
#include "base/layout.cuh"
#include "base/rule.cuh"
#include "base/source.cuh"
#include "base_kernels.cuh"

namespace hn {
namespace test {

int launch_all(void* p) {
  auto* const u = static_cast<uint32_t*>(p);
  auto* const i = static_cast<int*>(p);
  auto* const f = static_cast<float*>(p);
  auto* const h = static_cast<uint16_t*>(p);
  int error = fill_zero(p, 4, nullptr), count = 0;
  error |= multiprocessors(&count);
  error |= launch(row_scan_kernel<256, float>, 1, 256, 0, nullptr, f, 1, f, f);
  error |= launch(row_scan_kernel<32, int>, 1, 32, 0, nullptr, i, 1, i, i);
  error |= launch(row_scan_kernel<1024, uint32_t>, 1, 1024, 0, nullptr, u, 1, u, u);
  error |= launch(scribble_kernel<256>, 1, 256, 0, nullptr, u, u);
  error |= launch(warp_kernel<float>, 1, 32, 0, nullptr, f, i, u, i, f);
  error |= launch(warp_kernel<int>, 1, 32, 0, nullptr, i, i, u, i, i);
  error |= launch(select_kernel<256>, 1, 256, 0, nullptr, u, 1, u, 1, i, u);
  error |= launch(copy_kernel<4, float>, 1, 32, 0, nullptr, f, f, 1, 0);
  error |= launch(copy_kernel<8, uint16_t>, 1, 32, 0, nullptr, h, h, 1, 0);
  error |= launch(copy_kernel<2, uint16_t>, 1, 32, 0, nullptr, h, h, 1, 0);
  error |= launch(async_sum_kernel<16, 1>, 1, 64, 64 * 32, nullptr, u, 1, u);
  error |= launch(async_sum_kernel<8, 1>, 1, 64, 64 * 16, nullptr, u, 1, u);
  error |= launch(async_sum_kernel<4, 1>, 1, 64, 64 * 8, nullptr, u, 1, u);
  error |= launch(last_block_kernel, 1, 32, 0, nullptr, u, u, u, u);
  error |= launch(chained_scan_kernel, 1, 32, 0, nullptr, u, u, static_cast<uint64_t*>(p), u);
  error |= launch(release_kernel, 1, 32, 0, nullptr, u, u, u);
  error |= launch(mma_kernel, 1, 32, 0, nullptr, h, h, f, 16);
  auto* const b = static_cast<uint8_t*>(p);
  error |= launch(mma_bytes_kernel<false, false>, 1, 32, 0, nullptr, b, b, i, 32);
  error |= launch(mma_bytes_kernel<false, true>, 1, 32, 0, nullptr, b, b, i, 32);
  error |= launch(mma_bytes_kernel<true, false>, 1, 32, 0, nullptr, b, b, i, 32);
  error |= launch(mma_bytes_kernel<true, true>, 1, 32, 0, nullptr, b, b, i, 32);
  error |= launch(mma_ldmatrix_kernel, 1, 32, 0, nullptr, h, h, f, true);
  error |= launch(ldmatrix_kernel, 1, 32, 0, nullptr, h, u, u);
  error |= launch(pack_kernel, 1, 32, 0, nullptr, f, u, 1);
  return error;
}

}  // namespace test
}  // namespace hn
