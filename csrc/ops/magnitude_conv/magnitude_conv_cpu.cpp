// magnitude_conv_cpu.cpp: an image through masked magnitudes on a CPU, weights read where they lie; slopes.
#include "../../base/parallel.h"
#include "magnitude_conv.h"
#include "magnitude_workspace.h"

namespace hn {
namespace cpu {
namespace {

constexpr int64_t kSteps = 512;                    // weights of a row that are widened at a time
constexpr int64_t kPatchBytes = int64_t(5) << 18;  // of patches that a thread holds

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

void magnitude_conv_slopes(const MagnitudeConvSlopesParams& p) {
  const int64_t work = int64_t(p.shape.out_height) * p.shape.out_width * 8;  // not in vectors
  parallel_for(0, p.n, grain(work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) p.slopes[i] = slope_at(p, p.places[i]);
  });
}

}  // namespace cpu
}  // namespace hn
