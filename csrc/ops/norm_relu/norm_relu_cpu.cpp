// norm_relu_cpu.cpp: blocks of rows, summed in float64, a block by itself and the blocks in their order: the same bits
// with any number of threads and on every instruction set. (Memory is what a pass waits for, not the wider sums.)
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "../../base/isa.h"
#include "../../base/parallel.h"
#include "norm_relu.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kBlock = 32768;  // elements of a block: 64 KiB of bfloat16 stay in the second cache
constexpr int64_t kLanes = 64;     // sums at least in flight: rows narrower than this are taken several at a time
constexpr int64_t kFirst = 64;     // rows of a block at least; of the first, whose mean all is measured from

HN_INLINE float as_float(float v) { return v; }
HN_INLINE float as_float(uint16_t v) { return from_bfloat16(v); }
HN_INLINE void put(float* p, float v) { *p = v; }
HN_INLINE void put(uint16_t* p, float v) { *p = bfloat16_bits(v); }

// What both directions are made of: the maps' sizes, and rows of `channels` taken `fold` at a time as rows of `width`.
struct Rows {
  int64_t rows, channels, fold, width, block, blocks;

  Rows(int64_t r,
       int64_t c)  // kFirst and a block are whole folds: kLanes / c divides neither unless it is a power of 2
      : rows(r),
        channels(c),
        fold(std::max<int64_t>(1, kLanes / c)),
        width(c * fold),
        block(std::max<int64_t>(kFirst, kBlock / width * fold)),
        blocks((r + block - 1) / block) {}

  // The channels' numbers spread over a row of `width`.
  template <class V>
  std::vector<V> spread(const V* from) const {
    std::vector<V> out(width);
    for (int64_t i = 0; i < width; ++i) out[i] = from[i % channels];
    return out;
  }
};

// Sums of d = x - guess and of d * d; sums: [2][width]. n elements, whole rows of `channels`.
template <class T>
HN_INLINE void moments_body(const T* __restrict x, const float* __restrict guess, int64_t n, int64_t width,
                            double* __restrict sums, double* __restrict squares) {
  for (int64_t at = 0; at < n; at += width) {
    const int64_t w = std::min(width, n - at);
    for (int64_t c = 0; c < w; ++c) {
      const double d = double(as_float(x[at + c])) - double(guess[c]);
      sums[c] += d;
      squares[c] += d * d;
    }
  }
}
HN_DISPATCH_WIDE(moments, moments_body)

// y = (x - mean) * scale + shift, each spread over a row; shift makes good what mean lost when it was rounded.
struct Affine {
  std::vector<float> mean, scale, shift;

  Affine(const Rows& r, const double* exact_mean, const double* invstd, const float* gamma, const float* beta) {
    mean.assign(exact_mean, exact_mean + r.channels);
    for (int64_t c = 0; c < r.channels; ++c) {
      const double factor = gamma == nullptr ? invstd[c] : double(gamma[c]) * invstd[c];
      const double base = beta == nullptr ? 0.0 : double(beta[c]);
      scale.push_back(float(factor));
      shift.push_back(float(base + (double(mean[c]) - exact_mean[c]) * factor));
    }
    for (std::vector<float>* v : {&mean, &scale, &shift}) *v = r.spread(v->data());
  }
};

struct AffineRow {
  const float *mean, *scale, *shift;
  explicit AffineRow(const Affine& a) : mean(a.mean.data()), scale(a.scale.data()), shift(a.shift.data()) {}
};

template <class T, class Residual>
HN_INLINE void apply_body(const T* __restrict x, const T* __restrict residual, AffineRow a, int64_t n, int64_t width,
                          T* __restrict y, Residual) {
  for (int64_t at = 0; at < n; at += width) {
    const int64_t w = std::min(width, n - at);
    for (int64_t c = 0; c < w; ++c) {
      float v = (as_float(x[at + c]) - a.mean[c]) * a.scale[c] + a.shift[c];
      if (Residual::value) v += as_float(residual[at + c]);
      put(y + at + c, v <= 0.0f ? 0.0f : v);  // NaN stays
    }
  }
}
HN_DISPATCH_WIDE(apply, apply_body)

// dy where the ReLU let it through: by y, or by x where y has no residual.
template <class T, class Residual>
HN_INLINE float passed(const T* dy, const T* x, const T* y, const AffineRow& a, int64_t i, int64_t c, Residual) {
  const float sign = Residual::value ? as_float(y[i]) : (as_float(x[i]) - a.mean[c]) * a.scale[c] + a.shift[c];
  return sign <= 0.0f ? 0.0f : as_float(dy[i]);
}

// Sums of the gradient g behind the ReLU, and of g * (x - mean).
template <class T, class Residual>
HN_INLINE void gradient_sums_body(const T* __restrict dy, const T* __restrict x, const T* __restrict y, AffineRow a,
                                  const double* __restrict mean, int64_t n, int64_t width, double* __restrict sums,
                                  double* __restrict dots, Residual residual) {
  for (int64_t at = 0; at < n; at += width) {
    const int64_t w = std::min(width, n - at);
    for (int64_t c = 0; c < w; ++c) {
      const double g = passed(dy, x, y, a, at + c, c, residual);
      sums[c] += g;
      dots[c] += g * (double(as_float(x[at + c])) - mean[c]);
    }
  }
}
HN_DISPATCH_WIDE(gradient_sums, gradient_sums_body)

struct Slope {  // dx = (g - average - (x - mean) * slope) * scale, each spread over a row
  const float *average, *slope;
};

template <class T, class Residual>
HN_INLINE void gradient_body(const T* __restrict dy, const T* __restrict x, const T* __restrict y, AffineRow a, Slope s,
                             int64_t n, int64_t width, T* __restrict dx, T* __restrict dresidual, Residual residual) {
  for (int64_t at = 0; at < n; at += width) {
    const int64_t w = std::min(width, n - at);
    for (int64_t c = 0; c < w; ++c) {
      const float g = passed(dy, x, y, a, at + c, c, residual);
      put(dx + at + c, (g - s.average[c] - (as_float(x[at + c]) - a.mean[c]) * s.slope[c]) * a.scale[c]);
      if (Residual::value) put(dresidual + at + c, g);
    }
  }
}
HN_DISPATCH_WIDE(gradient, gradient_body)

// f(begin, elements) of every block: from the first to the last, or, where a pass comes after another, back: what was
// read last is still in the cache.
template <class F>
void for_blocks(const Rows& r, bool back, const F& f) {
  parallel_for(0, r.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block = back ? begin + end - 1 - i : i;
      const int64_t row = block * r.block;
      f(block, row * r.channels, std::min(r.block, r.rows - row) * r.channels);
    }
  });
}

// Two sums a channel over all rows. sum(begin, elements, a, b) adds a block's to a and b, each [width].
template <class F>
std::vector<double> totals(const Rows& r, const F& sum) {
  std::vector<double> parts(r.blocks * 2 * r.channels, 0.0), out(2 * r.channels, 0.0);
  for_blocks(r, false, [&](int64_t block, int64_t begin, int64_t n) {
    std::vector<double> sums(2 * r.width, 0.0);
    sum(begin, n, sums.data(), sums.data() + r.width);
    double* const part = parts.data() + block * 2 * r.channels;
    for (int64_t i = 0; i < r.width; ++i) {
      part[i % r.channels] += sums[i];
      part[r.channels + i % r.channels] += sums[r.width + i];
    }
  });
  for (int64_t block = 0; block < r.blocks; ++block) {
    for (int64_t i = 0; i < 2 * r.channels; ++i) out[i] += parts[block * 2 * r.channels + i];
  }
  return out;
}

template <class T>
std::vector<float> first_mean(const T* x, const Rows& r) {
  const int64_t rows = std::min(r.rows, kFirst);
  std::vector<float> mean(r.channels, 0.0f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < r.channels; ++c) mean[c] += as_float(x[row * r.channels + c]);
  }
  for (float& m : mean) m /= float(rows);
  return mean;
}

// Mean and the sum of squares around it: measured from a guess, so that no difference of two large numbers is left.
template <class T>
void batch_moments(const T* x, const Rows& r, std::vector<double>& mean, std::vector<double>& squares) {
  const std::vector<float> guess = first_mean(x, r), spread = r.spread(guess.data());
  const std::vector<double> found = totals(
      r, [&](int64_t begin, int64_t n, double* a, double* b) { moments(x + begin, spread.data(), n, r.width, a, b); });
  for (int64_t c = 0; c < r.channels; ++c) {
    const double off = found[c] / double(r.rows), around = found[r.channels + c] - off * found[c];
    mean[c] = guess[c] + off;
    squares[c] = around < 0.0 ? 0.0 : around;  // NaN stays
  }
}

template <class T>
void forward(const NormReluParams& p) {
  const Rows r(p.rows, p.channels);
  const T* const x = static_cast<const T*>(p.x);
  std::vector<double> mean(r.channels), squares(r.channels);
  batch_moments(x, r, mean, squares);
  for (int64_t c = 0; c < r.channels; ++c) {
    p.mean[c] = mean[c];
    p.invstd[c] = 1.0 / std::sqrt(squares[c] / double(r.rows) + p.eps);
    if (p.running_mean != nullptr) {
      p.running_mean[c] = float(p.momentum * mean[c] + (1.0 - p.momentum) * p.running_mean[c]);
      const double unbiased = squares[c] / double(r.rows - 1);
      p.running_var[c] = float(p.momentum * unbiased + (1.0 - p.momentum) * p.running_var[c]);
    }
  }
  const Affine affine(r, p.mean, p.invstd, p.gamma, p.beta);
  const AffineRow row(affine);
  T* const y = static_cast<T*>(p.y);
  const T* const residual = static_cast<const T*>(p.residual);
  for_blocks(r, true, [&](int64_t, int64_t at, int64_t n) {
    if (residual == nullptr) {
      apply(x + at, residual, row, n, r.width, y + at, std::false_type());
    } else {
      apply(x + at, residual + at, row, n, r.width, y + at, std::true_type());
    }
  });
}

template <class T, class Residual>
void backward(const NormReluBackwardParams& p, Residual residual) {
  const Rows r(p.rows, p.channels);
  const T *const dy = static_cast<const T*>(p.dy), *const x = static_cast<const T*>(p.x);
  const T* const y = static_cast<const T*>(p.y);
  const Affine affine(r, p.mean, p.invstd, p.gamma, p.beta);
  const AffineRow row(affine);
  const std::vector<double> mean = r.spread(p.mean);
  const std::vector<double> found = totals(r, [&](int64_t at, int64_t n, double* sums, double* dots) {
    gradient_sums(dy + at, x + at, Residual::value ? y + at : y, row, mean.data(), n, r.width, sums, dots, residual);
  });
  std::vector<float> average(r.channels), slope(r.channels);
  for (int64_t c = 0; c < r.channels; ++c) {
    const double invstd = p.invstd[c], dot = found[r.channels + c];
    p.dbeta[c] = float(found[c]);
    p.dgamma[c] = float(dot * invstd);
    average[c] = float(found[c] / double(r.rows));
    slope[c] = float(dot * invstd * invstd / double(r.rows));
  }
  const std::vector<float> wide_average = r.spread(average.data()), wide_slope = r.spread(slope.data());
  const Slope slopes{wide_average.data(), wide_slope.data()};
  T *const dx = static_cast<T*>(p.dx), *const dresidual = static_cast<T*>(p.dresidual);
  for_blocks(r, true, [&](int64_t, int64_t at, int64_t n) {
    gradient(dy + at, x + at, Residual::value ? y + at : y, row, slopes, n, r.width, dx + at,
             Residual::value ? dresidual + at : dresidual, residual);
  });
}

template <class T>
void backward_of(const NormReluBackwardParams& p) {
  p.y == nullptr ? backward<T>(p, std::false_type()) : backward<T>(p, std::true_type());
}

}  // namespace

void norm_relu(const NormReluParams& p) { p.dtype == Dtype::kFloat32 ? forward<float>(p) : forward<uint16_t>(p); }

void norm_relu_backward(const NormReluBackwardParams& p) {
  p.dtype == Dtype::kFloat32 ? backward_of<float>(p) : backward_of<uint16_t>(p);
}

}  // namespace cpu
}  // namespace hn
