// magnitude_backward_cpu.cpp: back through masked magnitudes on a CPU: the image's gradient, and the scores.
#include "../../base/parallel.h"
#include "magnitude_conv.h"
#include "magnitude_workspace.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kScoreBytes = int64_t(1) << 18;  // of patches that a thread holds
constexpr int64_t kBackwardRows = 72;              // of patches whose gradient a thread makes at a time, about

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

}  // namespace

void magnitude_conv_backward(const MagnitudeConvBackwardParams& p) {
  if (p.dx != nullptr) InputGradient(p).run();
  Scores(p).run();
}

}  // namespace cpu
}  // namespace hn
