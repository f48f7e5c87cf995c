// test_mma.cpp: the tensor-core tile and its loaders against plain loops: the fragment layout,
// element by element.
#include "base/dtype.h"
#include "base_kernels.cuh"
#include "device.h"

using namespace hn::test;
using hn::launch;

namespace {

// Integers up to 8 in bfloat16: products and sums are exact in float whatever the order.
std::vector<uint16_t> small_integers(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<uint16_t> v(n);
  for (uint16_t& x : v) x = hn::bfloat16_bits(float(int(random.below(17)) - 8));
  return v;
}

std::vector<float> product(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, int k, float start) {
  std::vector<float> d(128, start);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      for (int i = 0; i < k; ++i) {
        d[size_t(r * 8 + c)] += hn::from_bfloat16(a[size_t(r * k + i)]) * hn::from_bfloat16(b[size_t(i * 8 + c)]);
      }
    }
  }
  return d;
}

std::vector<float> run_mma(const std::vector<uint16_t>& a, const std::vector<uint16_t>& b, int k, float start) {
  return same_in_every_order([&] {
    Buffer<uint16_t> da(a), db(b);
    Buffer<float> d(std::vector<float>(128, start));
    CHECK_EQ(launch(mma_kernel, 1, 32, 0, nullptr, da.data(), db.data(), d.data(), k), 0);
    return d.read();
  });
}

TEST(mma_is_a_matrix_product) {
  for (int k : {0, 16, 32, 240}) {
    const auto a = small_integers(size_t(16 * k), 1), b = small_integers(size_t(8 * k), 2);
    CHECK_EQ(run_mma(a, b, k, 5.0f), product(a, b, k, 5.0f));
  }
}

TEST(mma_moves_each_element_to_its_place) {
  for (int i = 0; i < 16; ++i) {  // a single one in A against distinct numbers in B, and the reverse
    for (int j = 0; j < 16; ++j) {
      std::vector<uint16_t> a(256, 0), b(128);
      a[size_t(16 * i + j)] = hn::bfloat16_bits(1.0f);
      for (size_t e = 0; e < 128; ++e) b[e] = hn::bfloat16_bits(float(e + 1));
      CHECK_EQ(run_mma(a, b, 16, 0.0f), product(a, b, 16, 0.0f));
    }
  }
}

TEST(mma_of_fractions_is_close) {
  Random random(9);
  std::vector<uint16_t> a(256), b(128);
  for (uint16_t& x : a) x = hn::bfloat16_bits(random.symmetric());
  for (uint16_t& x : b) x = hn::bfloat16_bits(random.symmetric());
  const auto got = run_mma(a, b, 16, 0.25f), expected = product(a, b, 16, 0.25f);
  for (size_t i = 0; i < 128; ++i) CHECK(std::abs(got[i] - expected[i]) < 1e-5f);
}

template <bool kSignedA, bool kSignedB>
void check_bytes(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b, int k) {
  std::vector<int32_t> expected(128, 5);
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 8; ++c) {
      for (int i = 0; i < k; ++i) {
        const uint8_t x = a[size_t(r * k + i)], y = b[size_t(i * 8 + c)];
        expected[size_t(r * 8 + c)] += (kSignedA ? int(int8_t(x)) : int(x)) * (kSignedB ? int(int8_t(y)) : int(y));
      }
    }
  }
  const auto got = same_in_every_order([&] {
    Buffer<uint8_t> da(a), db(b);
    Buffer<int32_t> d(std::vector<int32_t>(128, 5));
    CHECK_EQ(launch(mma_bytes_kernel<kSignedA, kSignedB>, 1, 32, 0, nullptr, da.data(), db.data(), d.data(), k), 0);
    return d.read();
  });
  CHECK_EQ(got, expected);
}

TEST(mma_of_bytes_is_a_matrix_product) {
  Random random(13);
  for (int k : {0, 32, 96}) {
    std::vector<uint8_t> a(size_t(16 * k)), b(size_t(8 * k));
    for (uint8_t& x : a) x = uint8_t(random.bits());
    for (uint8_t& x : b) x = uint8_t(random.bits());
    check_bytes<false, false>(a, b, k);
    check_bytes<false, true>(a, b, k);
    check_bytes<true, false>(a, b, k);
    check_bytes<true, true>(a, b, k);
  }
}

TEST(mma_of_bytes_moves_each_element_to_its_place) {
  for (size_t at = 0; at < 16 * 32; at += 3) {  // a single one in A against distinct numbers in B
    std::vector<uint8_t> a(512, 0), b(256);
    a[at] = 1;
    for (size_t e = 0; e < 256; ++e) b[e] = uint8_t(e);
    check_bytes<true, false>(a, b, 32);
  }
}

TEST(ldmatrix_feeds_mma_from_either_layout_of_b) {
  const auto a = small_integers(256, 3), b = small_integers(128, 4);
  std::vector<uint16_t> k_major(128);
  for (size_t k = 0; k < 16; ++k) {
    for (size_t n = 0; n < 8; ++n) k_major[n * 16 + k] = b[k * 8 + n];
  }
  for (const bool major : {false, true}) {
    const auto got = same_in_every_order([&] {
      Buffer<uint16_t> da(a), db(major ? k_major : b);
      Buffer<float> d(128);
      CHECK_EQ(launch(mma_ldmatrix_kernel, 1, 32, 0, nullptr, da.data(), db.data(), d.data(), major), 0);
      return d.read();
    });
    CHECK_EQ(got, product(a, b, 16, 0.0f));
  }
}

TEST(ldmatrix_gives_row_and_column_neighbours) {
  std::vector<uint16_t> x(256);
  for (size_t i = 0; i < 256; ++i) x[i] = uint16_t(1000 + i);
  std::vector<uint32_t> plain, transposed;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    for (uint32_t m = 0; m < 4; ++m) {
      const auto at = [&](uint32_t r, uint32_t c) { return uint32_t(x[64 * m + 8 * r + c]); };
      const uint32_t g = lane / 4, t = lane % 4 * 2;
      plain.push_back(at(g, t) | at(g, t + 1) << 16);
      transposed.push_back(at(t, g) | at(t + 1, g) << 16);
    }
  }
  const auto got = same_in_every_order([&] {
    Buffer<uint16_t> in(x);
    Buffer<uint32_t> p(128), q(128);
    CHECK_EQ(launch(ldmatrix_kernel, 1, 32, 0, nullptr, in.data(), p.data(), q.data()), 0);
    CHECK_EQ(q.read(), transposed);
    return p.read();
  });
  CHECK_EQ(got, plain);
}

TEST(pack_bf16_rounds_to_nearest_even) {
  Random random(11);
  std::vector<float> x;
  for (int i = 0; i < 2000; ++i) x.push_back(hn::bits_float(uint32_t(random.bits()) & 0xff7fffffu));  // finite
  for (uint32_t u : {0x3f808000u, 0x3f818000u, 0x3f808001u, 0x3f807fffu, 0x7f7fffffu, 0x80000000u, 0x00000001u, 0u}) {
    x.push_back(hn::bits_float(u));
  }
  std::vector<uint32_t> expected;
  for (size_t i = 0; i < x.size(); i += 2) {
    expected.push_back(uint32_t(hn::bfloat16_bits(x[i + 1])) << 16 | hn::bfloat16_bits(x[i]));
  }
  const int n = int(expected.size());
  const auto got = same_in_every_order([&] {
    Buffer<float> in(x);
    Buffer<uint32_t> out(expected.size());
    CHECK_EQ(launch(pack_kernel, (n + 127) / 128, 128, 0, nullptr, in.data(), out.data(), n), 0);
    return out.read();
  });
  CHECK_EQ(got, expected);
}

#if !defined(__CUDACC__)

__global__ void bad_ldmatrix_kernel(const uint16_t* in, int kind) {
  HN_SHARED(EightHalves, rows, 33);
  uint32_t w[4];
  if (kind == 0) hn::ldmatrix_x4(w, reinterpret_cast<uint16_t*>(rows + hn::lane_index()) + 4);
  if (kind == 1) hn::ldmatrix_x4(w, in);
  if (kind == 2 && threadIdx.x < 16) hn::ldmatrix_x4(w, rows);
}

TEST(ldmatrix_refuses_what_the_hardware_does_not_do) {
  Buffer<uint16_t> in(8);
  CHECK_THROWS(simt::Error, "16-byte aligned rows", launch(bad_ldmatrix_kernel, 1, 32, 0, nullptr, in.data(), 0));
  CHECK_THROWS(simt::Error, "row in shared memory", launch(bad_ldmatrix_kernel, 1, 32, 0, nullptr, in.data(), 1));
  CHECK_THROWS(simt::Error, "has left", launch(bad_ldmatrix_kernel, 1, 32, 0, nullptr, in.data(), 2));
}

#endif

}  // namespace
