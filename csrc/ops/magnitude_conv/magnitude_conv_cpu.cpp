// magnitude_conv_cpu.cpp: three products of masked magnitudes on a CPU, each weight read where it lies.
#include <cstdlib>
#include <memory>
#include <new>

#include "../../base/parallel.h"
#include "magnitude_conv.h"
#include "magnitude_patches.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kSteps = 512;                       // weights of a row that are widened at a time
constexpr int64_t kPatchBytes = int64_t(5) << 18;     // of patches that a thread holds
constexpr int64_t kScoreBytes = int64_t(1) << 18;     // the same, for scores
constexpr int64_t kBackwardRows = 72;                 // of patches whose gradient a thread makes at a time, about
constexpr int64_t kMultiplyGrain = int64_t(1) << 17;  // products that are worth a thread, about

template <class T>
class Aligned {  // grows, holds garbage
 public:
  T* at_least(int64_t n) {
    if (n > n_) {
      n_ = 0;
      memory_.reset(static_cast<T*>(std::aligned_alloc(64, (size_t(n) * sizeof(T) + 63) / 64 * 64)));
      if (memory_ == nullptr) throw std::bad_alloc();
      n_ = n;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> memory_;
  int64_t n_ = 0;
};

struct Workspace {  // a thread's, kept from call to call
  Aligned<double> patches, weights, sums, image;
  Aligned<float> columns;
};

Workspace& workspace() {
  static thread_local Workspace w;
  return w;
}

int64_t up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int64_t grain(int64_t work) { return std::max<int64_t>(1, kMultiplyGrain / std::max<int64_t>(work, 1)); }

std::vector<int64_t> row_offsets(const Frame& f) {
  std::vector<int64_t> offsets(size_t(f.rows()));
  for (int64_t k = 0; k < f.rows(); ++k) offsets[size_t(k)] = f.of_row(k);
  return offsets;
}

class Forward {
 public:
  explicit Forward(const MagnitudeConvParams& p)
      : p_(p), f_(p.shape, sight_of(p.shape, p.x)), offsets_(row_offsets(f_)) {
    framed_.reset(new double[size_t(f_.elements())]);
    f_.put(p.x, 0, p.shape.in_channels, framed_.get());
    const int64_t fit = kPatchBytes / (std::max<int64_t>(f_.rows(), 1) * kPanel<double> * int64_t(sizeof(double)));
    group_ = std::min(std::max<int64_t>(fit, 1), f_.panels());
  }

  // A task is a group of panels and eight output channels.
  void run() {
    const int64_t tiles = up(p_.shape.out_channels, kTileRows) / kTileRows;
    const int64_t tasks = up(f_.panels(), group_) / group_ * tiles;
    parallel_for(0, tasks, grain(f_.rows() * kTileRows * kPanel<double> * group_), [&](int64_t begin, int64_t end) {
      int64_t held = -1;
      for (int64_t task = begin; task < end; ++task) {
        if (task / tiles != held) gather(held = task / tiles);
        multiply(held * group_, task % tiles * kTileRows);
      }
    });
  }

 private:
  int64_t panels_from(int64_t first) const { return std::min(group_, f_.panels() - first); }

  void gather(int64_t group) const {
    double* to = workspace().patches.at_least(group_ * f_.rows() * kPanel<double>);
    for (int64_t q = 0; q < panels_from(group * group_); ++q) {
      const PanelPositions positions(f_, group * group_ + q);
      for (int64_t k = 0; k < f_.rows(); ++k, to += kPanel<double>)
        positions.read(framed_.get() + offsets_[size_t(k)], to);
    }
  }

  void multiply(int64_t panel, int64_t row) const {
    Workspace& w = workspace();
    const int64_t rows = std::min<int64_t>(kTileRows, p_.shape.out_channels - row), panels = panels_from(panel);
    double* const sums = w.sums.at_least(group_ * kTileRows * kPanel<double>);
    double* const weights = w.weights.at_least(kTileRows * kSteps);
    std::fill(sums, sums + panels * kTileRows * kPanel<double>, 0.0);
    if (rows < kTileRows) std::fill(weights, weights + kTileRows * kSteps, 0.0);
    for (int64_t k = 0; k < f_.rows(); k += kSteps) {
      const int64_t steps = std::min(kSteps, f_.rows() - k);
      for (int64_t r = 0; r < rows; ++r) {
        widen(p_.weight, (row + r) * f_.rows() + k, steps, kSteps, weights + r * kSteps);
      }
      for (int64_t q = 0; q < panels; ++q) {
        tile(TileArgs<double>{weights, kSteps, 1, w.patches.at_least(0) + (q * f_.rows() + k) * kPanel<double>, steps,
                              used(panel + q), sums + q * kTileRows * kPanel<double>});
      }
    }
    const int64_t area = int64_t(p_.shape.out_height) * p_.shape.out_width;
    for (int64_t q = 0; q < panels; ++q) {
      for (int64_t r = 0; r < rows; ++r) {
        f_.spread(sums + (q * kTileRows + r) * kPanel<double>, (panel + q) * kPanel<double>, used(panel + q),
                  p_.y + (row + r) * area);
      }
    }
  }

  int32_t used(int64_t panel) const {
    return int32_t(std::min<int64_t>(kPanel<double>, f_.positions() - panel * kPanel<double>));
  }

  const MagnitudeConvParams& p_;
  const Frame f_;
  std::vector<int64_t> offsets_;
  std::unique_ptr<double[]> framed_;
  int64_t group_;  // panels whose patches a thread holds
};

class InputGradient {
 public:
  explicit InputGradient(const MagnitudeConvBackwardParams& p)
      : p_(p), f_(p.shape, every_position(p.shape)), offsets_(row_offsets(f_)) {
    channels_ = std::min<int64_t>(std::max<int64_t>(kBackwardRows / f_.taps(), 1), p.shape.in_channels);
  }

  // A task is a few input channels.
  void run() {
    pack();
    const int64_t tasks = up(p_.shape.in_channels, channels_) / channels_;
    const int64_t work = channels_ * f_.taps() * f_.panels() * kPanel<double> * p_.shape.out_channels;
    parallel_for(0, tasks, grain(work), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task * channels_;
        make(first, std::min(channels_, p_.shape.in_channels - first));
      }
    });
  }

 private:
  // dy as [panel][O][kPanel], zeros where there is no position.
  void pack() {
    const int64_t out = p_.shape.out_channels;
    packed_.reset(new double[size_t(f_.panels() * out * kPanel<double>)]);
    double* to = packed_.get();
    for (int64_t q = 0; q < f_.panels(); ++q) {
      const int64_t first = q * kPanel<double>, n = std::min<int64_t>(kPanel<double>, f_.positions() - first);
      for (int64_t o = 0; o < out; ++o, to += kPanel<double>) {
        std::copy_n(p_.dy + o * f_.positions() + first, n, to);
        std::fill(to + n, to + kPanel<double>, 0.0);
      }
    }
  }

  void make(int64_t first, int64_t channels) const {
    Workspace& w = workspace();
    const int64_t rows = channels * f_.taps(), padded = up(rows, kTileRows), out = p_.shape.out_channels;
    double* const weights = w.weights.at_least(out * padded);
    for (int64_t o = 0; o < out; ++o) {
      widen(p_.weight, o * f_.rows() + first * f_.taps(), rows, rows, weights + o * padded);
    }
    double* const image = w.image.at_least(channels * f_.plane());
    std::fill(image, image + channels * f_.plane(), 0.0);
    double* const sums = w.sums.at_least(padded * kPanel<double>);
    for (int64_t q = 0; q < f_.panels(); ++q) {
      const PanelPositions positions(f_, q);
      std::fill(sums, sums + padded * kPanel<double>, 0.0);
      for (int64_t k = 0; k < padded; k += kTileRows) {
        tile(TileArgs<double>{weights + k, 1, padded, packed_.get() + q * out * kPanel<double>, out, positions.count(),
                              sums + k * kPanel<double>});
      }
      for (int64_t k = 0; k < rows; ++k) positions.add(sums + k * kPanel<double>, image + offsets_[size_t(k)]);
    }
    const int64_t area = int64_t(p_.shape.in_height) * p_.shape.in_width;
    for (int64_t c = 0; c < channels; ++c) f_.take(image + c * f_.plane(), p_.dx + (first + c) * area);
  }

  const MagnitudeConvBackwardParams& p_;
  const Frame f_;
  std::vector<int64_t> offsets_;
  std::unique_ptr<double[]> packed_;
  int64_t channels_;
};

class Scores {
 public:
  explicit Scores(const MagnitudeConvBackwardParams& p)
      : p_(p), f_(p.shape, sight_of(p.shape, p.x)), offsets_(row_offsets(f_)) {
    const int64_t fit = kScoreBytes / (f_.positions() * kPanel<float> * int64_t(sizeof(float)));
    group_ = std::min(std::max<int64_t>(fit, 1), panels());
  }

  // A task is a group of panels, of patches' rows, and eight output channels.
  void run() {
    framed_.reset(new float[size_t(f_.elements())]);
    f_.put(p_.x, 0, p_.shape.in_channels, framed_.get());
    const int64_t tiles = up(p_.shape.out_channels, kTileRows) / kTileRows;
    round(tiles * kTileRows);
    const int64_t tasks = up(panels(), group_) / group_ * tiles;
    parallel_for(0, tasks, grain(f_.positions() * kTileRows * kPanel<float> * group_), [&](int64_t begin, int64_t end) {
      int64_t held = -1;
      for (int64_t task = begin; task < end; ++task) {
        if (task / tiles != held) gather(held = task / tiles);
        multiply(held * group_, task % tiles * kTileRows);
      }
    });
  }

 private:
  int64_t panels() const { return up(f_.rows(), kPanel<float>) / kPanel<float>; }

  // dy as float, with rows of zeros up to a whole tile.
  void round(int64_t rows) {
    const int64_t n = p_.shape.out_channels * f_.positions();
    rounded_.reset(new float[size_t(rows * f_.positions())]);
    if (f_.single()) {
      for (int64_t i = 0; i < n; ++i) rounded_[size_t(i)] = float(p_.dy[i]);
    } else {
      const int64_t area = int64_t(p_.shape.out_height) * p_.shape.out_width;
      for (int64_t o = 0; o < p_.shape.out_channels; ++o) {
        f_.collect(p_.dy + o * area, rounded_.get() + o * f_.positions());
      }
    }
    std::fill(rounded_.get() + n, rounded_.get() + rows * f_.positions(), 0.0f);
  }

  // Patches as [panel][position][kPanel], zeros past their last row.
  void gather(int64_t group) const {
    float* to = workspace().columns.at_least(group_ * f_.positions() * kPanel<float>);
    for (int64_t q = group * group_; q < std::min((group + 1) * group_, panels()); ++q) {
      const int64_t n = std::min<int64_t>(kPanel<float>, f_.rows() - q * kPanel<float>);
      const int64_t* const offsets = offsets_.data() + q * kPanel<float>;
      for (int64_t p = 0; p < f_.positions(); ++p, to += kPanel<float>) {
        const float* const from = framed_.get() + f_.of_position(p);
        for (int64_t i = 0; i < n; ++i) to[i] = from[offsets[i]];
        for (int64_t i = n; i < kPanel<float>; ++i) to[i] = 0.0f;
      }
    }
  }

  void multiply(int64_t panel, int64_t row) const {
    const int64_t last = std::min(panel + group_, panels());
    const float* columns = workspace().columns.at_least(0);
    for (int64_t q = panel; q < last; ++q, columns += f_.positions() * kPanel<float>) {
      alignas(64) float slopes[kTileRows * kPanel<float>] = {};
      add_up(columns, row, slopes);
      const int64_t n = std::min<int64_t>(kPanel<float>, f_.rows() - q * kPanel<float>);
      for (int64_t r = 0; r < std::min<int64_t>(kTileRows, p_.shape.out_channels - row); ++r) {
        score(p_.weight, (row + r) * f_.rows() + q * kPanel<float>, n, slopes + r * kPanel<float>, p_.accumulate,
              p_.scores);
      }
    }
  }

  void add_up(const float* columns, int64_t row, float* slopes) const {
    if (f_.positions() <= kBlock) return add_block(columns, row, 0, slopes);
    for (int64_t p = 0; p < f_.positions(); p += kBlock) {
      alignas(64) float block[kTileRows * kPanel<float>] = {};
      add_block(columns, row, p, block);
      for (int i = 0; i < kTileRows * kPanel<float>; ++i) slopes[i] += block[i];
    }
  }

  void add_block(const float* columns, int64_t row, int64_t p, float* sums) const {
    tile(TileArgs<float>{rounded_.get() + row * f_.positions() + p, f_.positions(), 1, columns + p * kPanel<float>,
                         std::min<int64_t>(kBlock, f_.positions() - p), kPanel<float>, sums});
  }

  const MagnitudeConvBackwardParams& p_;
  const Frame f_;
  std::vector<int64_t> offsets_;
  std::unique_ptr<float[]> framed_, rounded_;
  int64_t group_;  // panels whose patches a thread holds
};

double slope_at(const MagnitudeConvSlopesParams& p, int64_t place) {
  const ConvShape& s = p.shape;
  const int64_t kx = place % s.kernel_width, ky = place / s.kernel_width % s.kernel_height;
  const int64_t c = place / s.kernel_width / s.kernel_height % s.in_channels;
  const int64_t o = place / s.kernel_width / s.kernel_height / s.in_channels;
  const double* const x = p.x + c * s.in_height * s.in_width;
  const double* dy = p.dy + o * s.out_height * s.out_width;
  double sum = 0.0;
  for (int64_t y = 0; y < s.out_height; ++y, dy += s.out_width) {
    const int64_t iy = y * s.stride_height - s.padding_height + ky * s.dilation_height;
    if (iy < 0 || iy >= s.in_height) continue;
    for (int64_t i = 0; i < s.out_width; ++i) {
      const int64_t ix = i * s.stride_width - s.padding_width + kx * s.dilation_width;
      if (ix >= 0 && ix < s.in_width) sum += dy[i] * x[iy * s.in_width + ix];
    }
  }
  return sum;
}

}  // namespace

void magnitude_conv(const MagnitudeConvParams& p) { Forward(p).run(); }

void magnitude_conv_backward(const MagnitudeConvBackwardParams& p) {
  if (p.dx != nullptr) InputGradient(p).run();
  Scores(p).run();
}

void magnitude_conv_slopes(const MagnitudeConvSlopesParams& p) {
  const int64_t work = int64_t(p.shape.out_height) * p.shape.out_width * 8;  // not in vectors
  parallel_for(0, p.n, grain(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.slopes[i] = slope_at(p, p.places[i]);
  });
}

}  // namespace cpu
}  // namespace hn
