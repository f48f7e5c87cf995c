// test_norm_relu.cpp: batch norm, addition and ReLU against double precision, and ReLU with pooling bit for bit, the same
// on every instruction set. Buffers have no room to spare: sanitizers see what goes beyond them.
#include <cmath>

#include "conv_reference.h"
#include "isa_paths.h"
#include "ops/norm_relu/norm_relu.h"
#include "ops/relu_pool/relu_pool.h"

using namespace hn;
using hn::test::Context;
using hn::test::in_every_isa;
using hn::test::Random;

namespace {

float as_float(float v) { return v; }
float as_float(uint16_t v) { return from_bfloat16(v); }
template <class T>
T made(float v);
template <>
float made<float>(float v) {
  return v;
}
template <>
uint16_t made<uint16_t>(float v) {
  return bfloat16_bits(v);
}
template <class T>
constexpr Dtype kDtype = sizeof(T) == 4 ? Dtype::kFloat32 : Dtype::kBFloat16;

template <class T>
std::vector<T> drawn(Random* random, int64_t n, float middle) {
  std::vector<T> v;
  for (int64_t i = 0; i < n; ++i) v.push_back(made<T>(middle + 3.0f * random->symmetric()));
  return v;
}

template <class T>
struct Norm {
  int64_t rows, channels;
  std::vector<T> x, residual, dy, y, dx, dresidual;
  std::vector<float> gamma, beta, running_mean, running_var, dgamma, dbeta;
  std::vector<double> mean, invstd;

  Norm(int64_t r, int64_t c, bool adds) : rows(r), channels(c) {
    Random random(uint32_t(r * 31 + c));
    const int64_t n = r * c;
    x = drawn<T>(&random, n, 5.0f);
    if (adds) residual = drawn<T>(&random, n, 0.0f);
    dy = drawn<T>(&random, n, 0.0f);
    gamma = drawn<float>(&random, c, 1.0f);
    beta = drawn<float>(&random, c, 0.0f);
    for (std::vector<T>* v : {&y, &dx}) v->resize(size_t(n));
    dresidual.resize(adds ? size_t(n) : 0);
    running_mean.assign(size_t(c), 0.25f);
    running_var.assign(size_t(c), 1.0f);
    for (std::vector<float>* v : {&dgamma, &dbeta}) v->resize(size_t(c));
    for (std::vector<double>* v : {&mean, &invstd}) v->resize(size_t(c));
  }

  void run() {
    const T* const added = residual.empty() ? nullptr : residual.data();
    cpu::norm_relu({x.data(), added, gamma.data(), beta.data(), y.data(), mean.data(), invstd.data(),
                    running_mean.data(), running_var.data(), rows, channels, 0.1, 1e-5, kDtype<T>});
    cpu::norm_relu_backward({dy.data(), x.data(), added == nullptr ? nullptr : y.data(), gamma.data(), beta.data(),
                             mean.data(), invstd.data(), dx.data(), added == nullptr ? nullptr : dresidual.data(),
                             dgamma.data(), dbeta.data(), rows, channels, kDtype<T>});
  }

  void check() const {
    const double ulp = sizeof(T) == 4 ? 1e-6 : 8e-3;
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0, squares = 0, g_sum = 0, g_dot = 0;
      for (int64_t r = 0; r < rows; ++r) sum += as_float(x[size_t(r * channels + c)]);
      const double m = sum / double(rows);
      for (int64_t r = 0; r < rows; ++r) squares += std::pow(as_float(x[size_t(r * channels + c)]) - m, 2);
      const double s = 1.0 / std::sqrt(squares / double(rows) + 1e-5);
      CHECK(std::fabs(mean[size_t(c)] - m) < 1e-9 * (1 + std::fabs(m)));
      CHECK(std::fabs(invstd[size_t(c)] - s) < 1e-9 * s);
      CHECK(std::fabs(running_mean[size_t(c)] - (0.225 + 0.1 * m)) < 1e-5);
      CHECK(std::fabs(running_var[size_t(c)] - (0.9 + 0.1 * squares / double(rows - 1))) < 1e-5 * (1 + squares));
      for (int64_t r = 0; r < rows; ++r) {
        const size_t i = size_t(r * channels + c);
        const double g = as_float(y[i]) > 0 ? as_float(dy[i]) : 0;
        g_sum += g;
        g_dot += g * (as_float(x[i]) - m);
      }
      for (int64_t r = 0; r < rows; ++r) {
        const size_t i = size_t(r * channels + c);
        double v = (as_float(x[i]) - m) * s * gamma[size_t(c)] + beta[size_t(c)];
        if (!residual.empty()) v += as_float(residual[i]);
        CHECK(std::fabs(as_float(y[i]) - std::max(v, 0.0)) < ulp * 8 * (1 + std::fabs(v)));
        const double g = as_float(y[i]) > 0 ? as_float(dy[i]) : 0, scale = s * gamma[size_t(c)];
        const double want = (g - g_sum / double(rows) - (as_float(x[i]) - m) * s * s * g_dot / double(rows)) * scale;
        CHECK(std::fabs(as_float(dx[i]) - want) < ulp * 8 * (1 + std::fabs(scale)) * 4);
        if (!residual.empty()) CHECK_EQ(as_float(dresidual[i]), float(g));
      }
      CHECK(std::fabs(dbeta[size_t(c)] - g_sum) < 1e-5 * (1 + std::fabs(g_sum)));
      CHECK(std::fabs(dgamma[size_t(c)] - g_dot * s) < 1e-5 * (1 + std::fabs(g_dot * s)));
    }
  }
};

template <class T>
void check_norms() {
  for (const bool adds : {false, true}) {
    for (const int64_t channels : {1, 3, 16, 17, 64, 130}) {
      for (const int64_t rows : {2, 5, 64, 65, 700}) {
        const Context context(std::to_string(rows) + " rows of " + std::to_string(channels));
        std::vector<T> first;
        in_every_isa([&] {
          Norm<T> norm(rows, channels, adds);
          norm.run();
          norm.check();
          if (first.empty()) first = norm.dx;
          CHECK(std::memcmp(first.data(), norm.dx.data(), first.size() * sizeof(T)) == 0);
        });
      }
    }
  }
}

template <class T>
void check_pools() {
  for (const int64_t channels : {1, 7, 32, 65}) {
    for (const int64_t height : {2, 3, 6}) {
      for (const int64_t width : {2, 5, 8}) {
        Random random(uint32_t(channels * 64 + height * 8 + width));
        std::vector<T> x = drawn<T>(&random, 2 * height * width * channels, 0.0f);
        for (size_t i = 0; i < x.size(); i += 5) x[i] = made<T>(1.0f);  // ties
        for (size_t i = 3; i < x.size(); i += 41) x[i] = made<T>(NAN);
        const int64_t outputs = 2 * (height / 2) * (width / 2) * channels;
        const std::vector<T> dy = drawn<T>(&random, outputs, 0.0f);
        in_every_isa([&] {
          std::vector<T> y(size_t(outputs), T(0)), dx(x.size(), made<T>(9.0f));
          std::vector<uint8_t> places(size_t(outputs), 9);
          cpu::relu_pool({x.data(), y.data(), places.data(), 2, height, width, channels, kDtype<T>});
          cpu::relu_pool_backward({dy.data(), places.data(), dx.data(), 2, height, width, channels, kDtype<T>});
          std::vector<T> want(x.size(), T(0));
          for (int64_t o = 0; o < outputs; ++o) {
            const int64_t c = o % channels, j = o / channels % (width / 2);
            const int64_t i = o / channels / (width / 2) % (height / 2), n = o / channels / (width / 2) / (height / 2);
            float best = 0.0f;
            int64_t at = -1;
            for (int64_t k = 0; k < 4; ++k) {
              const int64_t from = ((n * height + 2 * i + k / 2) * width + 2 * j + k % 2) * channels + c;
              const float v = as_float(x[size_t(from)]);
              if (v > best || v != v) best = v, at = from;
            }
            const float got = as_float(y[size_t(o)]);
            CHECK(got == best || (got != got && best != best));
            if (at >= 0) want[size_t(at)] = dy[size_t(o)];
          }
          CHECK(std::memcmp(want.data(), dx.data(), want.size() * sizeof(T)) == 0);
        });
      }
    }
  }
}

}  // namespace

TEST(norms_against_double_precision) {
  check_norms<float>();
  check_norms<uint16_t>();
}

TEST(pools_against_a_plain_loop) {
  check_pools<float>();
  check_pools<uint16_t>();
}
