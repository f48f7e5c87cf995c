// test_code_weight_gradient.cpp: kernel and CPU loops of every instruction set against a plain int64 loop, bit for bit.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/isa.h"
#include "conv_reference.h"
#include "device.h"
#include "ops/code_weight_gradient/code_weight_gradient.cu"

namespace hn {
namespace test {
namespace {

constexpr float kInputDelta = 0.0123f, kGradientDelta = 3.4e-7f;
constexpr CodeType kInputs[] = {CodeType::kUint8, CodeType::kInt8, CodeType::kInt16, CodeType::kInt32};
constexpr CodeType kGradients[] = {CodeType::kInt8, CodeType::kInt16};

struct Range {
  int32_t low, high;
};

Range range_of(CodeType t) {
  switch (t) {
    case CodeType::kUint8: return {0, 255};
    case CodeType::kInt8: return {-128, 127};
    case CodeType::kInt16: return {-32768, 32767};
    default: return {0, 65535};
  }
}

size_t bytes_of(CodeType t) { return t == CodeType::kInt32 ? 4 : (t == CodeType::kInt16 ? 2 : 1); }

// What the codes are: drawn, or all the lowest, or all the highest.
enum class Fill { kDrawn, kLowest, kHighest };

std::vector<int32_t> make_codes(CodeType t, size_t n, Fill fill, uint64_t seed) {
  const Range r = range_of(t);
  Random random(seed);
  std::vector<int32_t> v(n, fill == Fill::kLowest ? r.low : r.high);
  if (fill == Fill::kDrawn) {
    for (int32_t& c : v) c = r.low + int32_t(random.below(uint32_t(r.high - r.low + 1)));
  }
  return v;
}

std::vector<uint8_t> stored(CodeType t, const std::vector<int32_t>& codes) {
  std::vector<uint8_t> v;
  for (const int32_t c : codes) {
    for (size_t b = 0; b < bytes_of(t); ++b) v.push_back(uint8_t(uint32_t(c) >> (8 * b)));
  }
  return v;
}

struct CodeCase {
  Shape shape;
  int32_t groups = 1;
  CodeType input_type = CodeType::kUint8, gradient_type = CodeType::kInt16;
  bool channels_last = true;
  Fill input_fill = Fill::kDrawn, gradient_fill = Fill::kDrawn;
  float gradient_delta = kGradientDelta;

  std::string text() const {
    return shape.text() + ", " + std::to_string(groups) + " groups, codes of " + std::to_string(int(input_type)) +
           " and " + std::to_string(int(gradient_type)) + (channels_last ? ", OHWI" : ", OIHW");
  }
  int32_t per_group() const { return shape.in / groups; }
  size_t weights() const { return size_t(shape.out) * size_t(per_group() * shape.taps()); }
};

struct Data {
  std::vector<int32_t> input, gradient;
};

Data make_data(const CodeCase& c) {
  const ConvShape s = c.shape.conv();
  return {make_codes(c.input_type, size_t(s.batch) * size_t(s.in_height * s.in_width * s.in_channels), c.input_fill, 1),
          make_codes(c.gradient_type, size_t(s.batch) * size_t(s.out_height * s.out_width * s.out_channels),
                     c.gradient_fill, 2)};
}

// dw as it lies in memory, and the largest magnitude behind it.
std::vector<float> expected(const CodeCase& c, const Data& data) {
  const ConvShape s = c.shape.conv();
  const int32_t channels = c.per_group(), rows = c.shape.out / c.groups, taps = c.shape.taps();
  std::vector<int64_t> sums(c.weights());
  for (int32_t n = 0; n < s.batch; ++n) {
    for (int32_t pixel = 0; pixel < s.out_height * s.out_width; ++pixel) {
      for (int32_t tap = 0; tap < taps; ++tap) {
        const int32_t y =
            pixel / s.out_width * s.stride_height - s.padding_height + tap / s.kernel_width * s.dilation_height;
        const int32_t x =
            pixel % s.out_width * s.stride_width - s.padding_width + tap % s.kernel_width * s.dilation_width;
        if (y < 0 || y >= s.in_height || x < 0 || x >= s.in_width) continue;
        const size_t in = size_t((n * s.in_height + y) * s.in_width + x) * size_t(s.in_channels);
        const size_t out = size_t(n * s.out_height * s.out_width + pixel) * size_t(s.out_channels);
        for (int32_t o = 0; o < s.out_channels; ++o) {
          const int64_t g = data.gradient[out + size_t(o)];
          for (int32_t i = 0; i < channels; ++i) {
            const int32_t at = c.channels_last ? tap * channels + i : i * taps + tap;
            sums[size_t(o * channels * taps + at)] += g * data.input[in + size_t(o / rows * channels + i)];
          }
        }
      }
    }
  }
  std::vector<float> dw;
  float largest = 0.0f;
  const double scale = double(kInputDelta) * double(c.gradient_delta);
  for (const int64_t sum : sums) {
    dw.push_back(s.batch > 0 ? float(double(sum) * scale) : 0.0f);
    largest = std::isnan(dw.back()) ? dw.back() : std::max(largest, std::fabs(dw.back()));
  }
  dw.push_back(largest);
  return dw;
}

template <class F>
std::vector<float> run(const CodeCase& c, const Data& data, int processors, F launch_it) {
  Buffer<uint8_t> input(stored(c.input_type, data.input)), gradient(stored(c.gradient_type, data.gradient));
  Buffer<float> input_delta(std::vector<float>{kInputDelta}), gradient_delta(std::vector<float>{c.gradient_delta});
  Buffer<float> dw(c.weights()), largest(1);
  CodeWeightGradientParams p{
      input.data(), gradient.data(), c.input_type, c.gradient_type, input_delta.data(), gradient_delta.data(),
      dw.data(),    largest.data(),  nullptr,      c.shape.conv(),  c.groups,           c.channels_last};
  Buffer<int64_t> sums(size_t(cuda::sums_of(p, processors)));
  p.sums = sums.data();
  launch_it(p);
  std::vector<float> result = dw.read();
  result.push_back(largest.read()[0]);
  return result;
}

std::vector<float> run_kernel(const CodeCase& c, const Data& data, int processors) {
  return same_in_every_order([&] {
    return run(c, data, processors,
               [&](const CodeWeightGradientParams& p) { CHECK_EQ(cuda::launch_gradient(p, processors, nullptr), 0); });
  });
}

#if !defined(__CUDACC__)

struct Path {
  const char* name;
  Isa isa;
  bool wide, dot_products;
};

// Those this machine has.
std::vector<Path> paths() {
  std::vector<Path> all = {{"scalar", Isa::kScalar, false, false}};
  if (isa() == Isa::kAvx2) all.push_back({"AVX2", Isa::kAvx2, false, false});
  if (isa() == Isa::kAvx2 && wide()) all.push_back({"AVX-512", Isa::kAvx2, true, false});
  if (isa() == Isa::kAvx2 && wide() && dot_products()) all.push_back({"VNNI", Isa::kAvx2, true, true});
  return all;
}

void check_cpu(const CodeCase& c, const Data& data, const std::vector<float>& want) {
  struct Restore {
    Isa isa = hn::isa();
    bool wide = hn::wide(), dot_products = hn::dot_products();
    ~Restore() {
      hn::isa() = isa;
      hn::wide() = wide;
      hn::dot_products() = dot_products;
    }
  } restore;
  for (const Path& path : paths()) {
    const Context in(path.name);
    isa() = path.isa;
    wide() = path.wide;
    dot_products() = path.dot_products;
    CHECK_EQ(run(c, data, 1, [](const CodeWeightGradientParams& p) { cpu::code_weight_gradient(p); }), want);
    isa() = restore.isa;
    wide() = restore.wide;
    dot_products() = restore.dot_products;
  }
}

#else
void check_cpu(const CodeCase&, const Data&, const std::vector<float>&) {}  // their memory is not the host's
#endif

void check(const CodeCase& c, int processors = 4) {
  const Context in(c.text());
  const Data data = make_data(c);
  const std::vector<float> want = expected(c, data);
  check_cpu(c, data, want);
  CHECK_EQ(run_kernel(c, data, processors), want);
}

CodeCase make_case(const Shape& shape, int turn, int32_t groups = 1) {
  CodeCase c;
  c.shape = shape;
  c.groups = groups;
  c.input_type = kInputs[turn % 4];
  c.gradient_type = kGradients[turn / 4 % 2];
  c.channels_last = turn / 8 % 2 == 0;
  return c;
}

}  // namespace

TEST(shapes_and_codes) {
  const std::vector<Shape> shapes = {
      {2, 16, 8, {6, 8}, {3, 3}, {1, 1}, {1, 1}},
      {1, 33, 13, {5, 7}, {3, 3}, {1, 1}, {1, 1}},        // odd everything
      {2, 64, 9, {4, 4}, {1, 1}},                         // four vectors of one tap
      {3, 17, 10, {3, 3}, {1, 1}},                        // an odd row: images are one
      {11, 35, 12, {1, 1}, {1, 1}},                       // linear
      {2, 20, 66, {6, 7}, {1, 1}, {2, 2}},                // more rows than the kernel's tile
      {2, 20, 68, {6, 7}, {1, 1}, {2, 2}},                // the same, four channels at once
      {2, 3, 9, {13, 14}, {7, 7}, {2, 2}, {3, 3}},        // a first layer
      {2, 2, 9, {4, 3}, {3, 3}, {1, 1}, {4, 4}, {3, 3}},  // gathered taps, most of them outside
      {1, 16, 5, {9, 7}, {5, 5}, {1, 1}, {4, 4}, {2, 2}},
      {1, 18, 8, {7, 6}, {3, 1}, {3, 2}, {2, 0}, {1, 2}},    // each axis its own
      {1, 16, 3, {11, 11}, {3, 3}, {1, 1}, {4, 4}, {4, 4}},  // rows that taps do not share
      {1, 16, 2, {1, 1}, {3, 3}, {1, 1}, {2, 2}},
      {1, 1, 1, {1, 1}, {1, 1}},
  };
  int turn = 0;
  for (const Shape& shape : shapes) {
    for (int i = 0; i < 3; ++i) check(make_case(shape, turn += 5));
  }
}

TEST(groups) {
  for (int turn : {0, 6, 9, 15}) {
    check(make_case({2, 40, 18, {5, 4}, {3, 3}, {1, 1}, {1, 1}}, turn, 2));
    check(make_case({1, 12, 12, {5, 6}, {3, 3}, {1, 1}, {1, 1}}, turn, 12));  // depthwise
    check(make_case({1, 3, 6, {5, 6}, {3, 3}, {2, 2}, {1, 1}}, turn, 3));
  }
}

TEST(every_pair_of_codes_at_its_extremes) {
  for (const CodeType input : kInputs) {
    for (const CodeType gradient : kGradients) {
      for (const Fill x : {Fill::kLowest, Fill::kHighest}) {
        for (const Fill g : {Fill::kLowest, Fill::kHighest}) {
          CodeCase c = make_case({3, 16, 8, {16, 18}, {1, 1}}, 0);
          c.input_type = input;
          c.gradient_type = gradient;
          c.input_fill = x;
          c.gradient_fill = g;
          check(c, 1);
        }
      }
    }
  }
}

// More than an int32 holds in one block's depth, for two tiles fill a processor: of 255 times 255, and of low times high
// bytes and high times low ones together.
TEST(sums_longer_than_an_int32) {
  CodeCase c = make_case({1, 2, 2, {1, 33100}, {1, 1}}, 0, 2);
  c.input_type = CodeType::kInt32;
  c.gradient_type = CodeType::kInt16;
  Data data = make_data(c);
  for (size_t i = 0; i < data.input.size(); ++i) {
    data.input[i] = i % 2 ? 65535 : 255;
    data.gradient[i] = i % 2 ? 32767 : 255;
  }
  const std::vector<float> want = expected(c, data);
  check_cpu(c, data, want);
  CHECK_EQ(run_kernel(c, data, 1), want);
}

// The same of the CPU's loops with the shortest codes: 255 times -128.
TEST(rows_longer_than_an_int32) {
  CodeCase c = make_case({1, 1, 1, {1, 140000}, {1, 1}}, 0);
  c.input_fill = Fill::kHighest;
  c.gradient_fill = Fill::kLowest;
  const Data data = make_data(c);
  check_cpu(c, data, expected(c, data));
}

// Codes that four channels at once could not be read from.
TEST(any_alignment) {
  const CodeCase c = make_case({1, 16, 8, {5, 4}, {3, 3}, {1, 1}, {1, 1}}, 4);
  const Data data = make_data(c);
  const std::vector<float> want = expected(c, data);
  for (const size_t shift : {size_t(1), size_t(2)}) {
    const auto shifted = [&](CodeType t, std::vector<int32_t> codes) {
      codes.insert(codes.begin(), shift, 77);
      return stored(t, codes);
    };
    Buffer<uint8_t> input(shifted(c.input_type, data.input)), gradient(shifted(c.gradient_type, data.gradient));
    CHECK_EQ(run(c, data, 4,
                 [&](CodeWeightGradientParams p) {
                   p.input = input.data() + shift * bytes_of(c.input_type);
                   p.gradient = gradient.data() + shift * bytes_of(c.gradient_type);
                   CHECK_EQ(cuda::launch_gradient(p, 4, nullptr), 0);
                 }),
             want);
  }
}

// A block's whole depth, whose warps share rows and columns.
TEST(whole) { check(make_case({2, 64, 64, {8, 8}, {1, 1}}, 4), 1); }

// One chunk of the depth, and as many as there are.
TEST(chunks) {
  const CodeCase c = make_case({5, 16, 8, {20, 20}, {3, 3}, {1, 1}, {1, 1}}, 4);
  check(c, 1);
  check(c, 1000);
}

TEST(empty_and_special) {
  CodeCase c = make_case({0, 16, 8, {4, 4}, {3, 3}, {1, 1}, {1, 1}}, 0);
  c.gradient_delta = std::numeric_limits<float>::quiet_NaN();
  check(c);
  c.shape = {1, 16, 8, {4, 4}, {3, 3}, {1, 1}, {1, 1}};
  for (const float delta : {std::numeric_limits<float>::infinity(), 0.0f, 1e-45f}) {
    c.gradient_delta = delta;
    c.input_fill = c.gradient_fill = Fill::kHighest;
    check(c);
  }
  c.shape.out = 0;
  check(c);
}

}  // namespace test
}  // namespace hn
