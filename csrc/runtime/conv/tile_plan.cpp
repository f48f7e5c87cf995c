// tile_plan.cpp: how the rows of A tiles, an output's place each, find their inputs, and the loops around the products.
#include "tile_plan.h"

#include <algorithm>

#include "tile_weights.h"

namespace hiddennet::runtime {

#if defined(HN_AMX)

namespace {

// direct: rows are neighbouring pixels where they lie (1 x 1, stride 1). panel: each output's inputs are copied together.
// images: rows are the images at one place of a small map, so that taps in the padding are left out. rows: neighbouring
// outputs of a row, of a copy with its padding.
enum class Feed { direct, panel, images, rows };

constexpr int64_t kRows = 32, kSumBytes = 4096, kZeroBytes = 1024, kPanelBytes = 768 << 10;
constexpr int32_t kExpanded = 8;  // tiles along k that are expanded at a time where they are used once

int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

Feed choose_feed(const ConvShape& s) {
  const bool whole = s.in_channels % 32 == 0;
  const bool padded = s.pad_top != 0 || s.pad_left != 0 || s.pad_bottom != 0 || s.pad_right != 0;
  const bool point = s.kernel_h == 1 && s.kernel_w == 1 && !padded;
  if (point) return whole && s.stride_h == 1 && s.stride_w == 1 ? Feed::direct : Feed::panel;
  const int64_t map_bytes = std::min(s.batch, kRows) * s.height * s.width * s.in_channels * 2;
  if (s.in_channels >= 32 && s.batch >= 16 && s.out_width() < 16 && map_bytes <= 2 * kPanelBytes) return Feed::images;
  const double used = double(s.out_width()) / double(over(s.out_width(), 16) * 16);
  if (whole && s.out_width() >= 16 && used > 0.85 && s.out_channels < 256) return Feed::rows;
  return Feed::panel;
}

std::string tile_name(bool is_signed, bool tiles) {
  return std::string(is_signed ? "tiles signed " : "tiles bf16 ") + (tiles ? "amx" : "avx512");
}

bool has_tiles(const ConvShape& s) { return hn::bfloat16_products() && hn::wide() && s.groups == 1; }

class TilePlan : public ConvPlan {
 public:
  TilePlan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue)
      : s_(shape),
        finish_(shape, weights.magnitude, epilogue),
        depth_(shape),
        weights_(shape, weights, depth_),
        feed_(choose_feed(shape)),
        tiles_(hn::matrix_tiles()),
        strips_(over(shape.out_channels, kStrip)),
        pixels_(shape.out_height() * shape.out_width()) {
    if (feed_ == Feed::images) {
      groups_ = std::min<int64_t>(2, over(s_.batch, 16));
      parts_ = over(s_.batch, kRows);
      fed_bytes_ = s_.height * s_.width * depth_.tiles * groups_ * kTile * 2;
    } else if (feed_ == Feed::rows) {
      band_width_ = (s_.out_width() - 1) * s_.stride_w + (s_.kernel_w - 1) * s_.dilation_w + 1;
      const int64_t row_bytes = band_width_ * s_.in_channels * 2;
      const int64_t most = (kPanelBytes / row_bytes - (s_.kernel_h - 1) * s_.dilation_h - 1) / s_.stride_h + 1;
      bands_ = over(s_.out_height(), std::max<int64_t>(1, std::min(s_.out_height(), most)));
      band_rows_ = over(s_.out_height(), bands_);
      bands_ = over(s_.out_height(), band_rows_);
      parts_ = s_.batch * bands_;
      fed_bytes_ = row_bytes * ((band_rows_ - 1) * s_.stride_h + (s_.kernel_h - 1) * s_.dilation_h + 1);
    } else {
      const int64_t rows = s_.batch * pixels_;
      const int64_t row_bytes = feed_ == Feed::direct ? s_.in_channels * 2 : int64_t(depth_.all()) * 64;
      const int64_t blocks = over(rows, kRows), most = std::max<int64_t>(1, kPanelBytes / (row_bytes * kRows));
      parts_ = over(blocks, most);
      part_rows_ = over(blocks, parts_) * kRows;
      parts_ = over(rows, part_rows_);
      fed_bytes_ = feed_ == Feed::direct ? row_bytes * kRows : row_bytes * part_rows_;
    }
    // Few parts: strips are shared out, too, each task feeding itself.
    strip_groups_ = parts_ >= 4 ? 1 : std::min<int64_t>(strips_, feed_ == Feed::direct ? 4 : 2);
  }

  std::string name() const override { return tile_name(weights_.is_signed(), tiles_); }
  Layout input() const override { return Layout::nhwc_bf16; }
  Layout output() const override { return Layout::nhwc_bf16; }
  size_t weight_bytes() const override { return weights_.bytes() + finish_.bytes(); }
  size_t workspace_bytes() const override {
    return size_t(kSumBytes + kZeroBytes + strip_bytes() + (fed_bytes_ + 63) / 64 * 64);
  }
  int64_t tasks() const override { return parts_ * strip_groups_; }

  void run(const void* x, const void* residual, void* y, void* workspace, int64_t task) const override {
    const hn::TileRegisters registers(tiles_);
    const int64_t part = task / strip_groups_, group = task % strip_groups_;
    Work w;
    w.x = static_cast<const uint16_t*>(x);
    w.residual = static_cast<const uint16_t*>(residual);
    w.y = static_cast<uint16_t*>(y);
    char* const room = static_cast<char*>(workspace);
    w.sums = reinterpret_cast<float*>(room);
    w.zeros = reinterpret_cast<uint16_t*>(room + kSumBytes);
    w.strip = reinterpret_cast<uint16_t*>(room + kSumBytes + kZeroBytes);
    w.fed = reinterpret_cast<uint16_t*>(room + kSumBytes + kZeroBytes + strip_bytes());
    w.part = part;
    feed(&w);
    const int64_t end = strips_ * (group + 1) / strip_groups_;
    for (int64_t strip = strips_ * group / strip_groups_; strip < end; ++strip) run_strip(w, strip);
  }

 private:
  struct Work {
    const uint16_t *x, *residual;
    uint16_t* y;
    float* sums;
    uint16_t *zeros, *strip, *fed;
    int64_t part;
    int64_t row_tiles;
  };

  int64_t strip_bytes() const { return weights_.is_signed() ? int64_t(depth_.all()) * 2 * kTile * 2 : 0; }

  // What of the input the part needs, as its tiles read it.
  void feed(Work* w) const {
    if (feed_ == Feed::images) {
      w->row_tiles = pixels_ * groups_;
      std::memset(w->zeros, 0, kZeroBytes);
      feed_images(*w);
    } else if (feed_ == Feed::rows) {
      const int64_t top = w->part % bands_ * band_rows_;
      w->row_tiles = std::min(band_rows_, s_.out_height() - top) * over(s_.out_width(), 16);
      feed_rows(*w);
    } else {
      const int64_t first = w->part * part_rows_, rows = std::min(part_rows_, s_.batch * pixels_ - first);
      w->row_tiles = over(rows, 16);
      const int64_t panel = int64_t(depth_.all()) * 2 * kTile;
      if (feed_ == Feed::panel) {
        for (int64_t i = 0; i < rows; i += kRows)
          gather(w->x, first + i, std::min(kRows, rows - i), w->fed + i / kRows * panel);
      } else if (rows % kRows != 0) {  // direct, but for the last rows
        gather(w->x, first + rows / kRows * kRows, rows % kRows, w->fed);
      }
    }
  }

  // The inputs of `rows` outputs as tiles: [tiles along k][2][16][32].
  void gather(const uint16_t* x, int64_t first, int64_t rows, uint16_t* to) const {
    const int64_t c = s_.in_channels, taps = depth_.rows ? s_.kernel_w : 1;
    const int64_t columns = depth_.rows ? 1 : s_.kernel_w;  // segments of a row of taps
    int64_t n = first / pixels_, oy = first % pixels_ / s_.out_width(), ox = first % s_.out_width();
    for (int64_t r = 0; r < kRows; ++r) {
      uint16_t* row = to + r / 16 * kTile + r % 16 * 32;
      const int64_t top = oy * s_.stride_h - s_.pad_top, left = ox * s_.stride_w - s_.pad_left;
      for (int64_t kx = 0; kx < columns; ++kx) {
        const int64_t left_tap = left + kx * s_.dilation_w;
        const int64_t begin = std::max<int64_t>(0, -left_tap), end = std::min(taps, s_.width - left_tap);
        const bool inside = r < rows && begin < end;
        const uint16_t* from = x + ((n * s_.height + top) * s_.width + left_tap) * c;
        uint16_t* piece = row + kx * depth_.tiles * 2 * kTile;
        int64_t y = top;
        for (int64_t ky = 0; ky < s_.kernel_h; ++ky, y += s_.dilation_h) {
          const bool there = inside && y >= 0 && y < s_.height;
          copy_pieces(there ? from : x, there ? int32_t(begin * c) : 0, there ? int32_t(end * c) : 0, depth_.tiles,
                      2 * kTile, piece);
          from += s_.dilation_h * s_.width * c;
          piece += columns * depth_.tiles * 2 * kTile;
        }
      }
      if (r + 1 >= rows || ++ox < s_.out_width()) continue;  // behind the last: zeros
      ox = 0;
      if (++oy < s_.out_height()) continue;
      oy = 0;
      ++n;
    }
  }

  // [places][tiles of channels][groups of 16 images][16][32].
  void feed_images(const Work& w) const {
    const int64_t map = s_.height * s_.width, c = s_.in_channels;
    for (int64_t p = 0; p < map; ++p) {
      uint16_t* const to = w.fed + p * depth_.tiles * groups_ * kTile;
      for (int64_t i = 0; i < groups_ * 16; ++i) {
        const int64_t n = w.part * kRows + i;
        const bool there = n < s_.batch;
        copy_pieces(w.x + (there ? (n * map + p) * c : 0), 0, there ? int32_t(c) : 0, depth_.tiles, groups_ * kTile,
                    to + i / 16 * kTile + i % 16 * 32);
      }
    }
  }

  void feed_rows(const Work& w) const {
    const int64_t n = w.part / bands_, first = w.part % bands_ * band_rows_, c = s_.in_channels;
    const int64_t rows = std::min(band_rows_, s_.out_height() - first);
    const int64_t needed = (rows - 1) * s_.stride_h + (s_.kernel_h - 1) * s_.dilation_h + 1;
    const int64_t left = std::min(s_.pad_left, band_width_);
    const int64_t inside = std::max<int64_t>(0, std::min(s_.width, band_width_ - left));
    for (int64_t i = 0; i < needed; ++i) {
      uint16_t* const to = w.fed + i * band_width_ * c;
      const int64_t y = first * s_.stride_h - s_.pad_top + i;
      if (y < 0 || y >= s_.height) {
        std::memset(to, 0, size_t(band_width_ * c) * 2);
        continue;
      }
      std::memset(to, 0, size_t(left * c) * 2);
      std::memcpy(to + left * c, w.x + (n * s_.height + y) * s_.width * c, size_t(inside * c) * 2);
      std::memset(to + (left + inside) * c, 0, size_t((band_width_ - left - inside) * c) * 2);
    }
  }

  // Of a block of two row tiles (or one): its runs along k. Returns their number. Written field by field: a copy of
  // a whole run would wait until the outputs before it are in the cache.
  int32_t find_runs(const Work& w, int64_t tile, const uint16_t* b, TileRun* runs, TileSteps* steps) const {
    const bool two = tile + 1 < w.row_tiles;
    int32_t n = 0;
    const auto put = [&](const uint16_t* first, const uint16_t* second, const uint16_t* from, int32_t count) {
      TileRun& run = runs[n++];
      run.first = first;
      run.second = second;
      run.b = from;
      run.count = count;
    };
    if (feed_ == Feed::images) {
      *steps = {64, groups_ * kTile};
      for (int32_t t = 0; t < depth_.segments; ++t) {
        const uint16_t* const first = image_tile(w, tile, t);
        const uint16_t* const second = two ? image_tile(w, tile + 1, t) : nullptr;
        if (first == nullptr && second == nullptr) continue;
        const uint16_t* const from = b + int64_t(t) * depth_.tiles * 2 * kTile;
        if (first != nullptr && (second != nullptr || !two)) {
          put(first, two ? second : first, from, depth_.tiles);
          continue;
        }
        for (int32_t k = 0; k < depth_.tiles; ++k) {  // zeros do not move on
          const int64_t on = k * steps->a_step;
          put(first == nullptr ? w.zeros : first + on, second == nullptr ? w.zeros : second + on,
              from + int64_t(k) * 2 * kTile, 1);
        }
      }
    } else if (feed_ == Feed::rows) {
      *steps = {s_.stride_w * s_.in_channels * 2, 32};
      const uint16_t *const first = row_tile(w, tile), *const second = two ? row_tile(w, tile + 1) : first;
      for (int32_t t = 0; t < depth_.segments; ++t) {
        const int64_t tap = t / s_.kernel_w * s_.dilation_h * band_width_ + t % s_.kernel_w * s_.dilation_w;
        const int64_t at = tap * s_.in_channels;
        put(first + at, second + at, b + int64_t(t) * depth_.tiles * 2 * kTile, depth_.tiles);
      }
    } else {
      const int64_t first = w.part * part_rows_ + tile * 16,
                    last = std::min((w.part + 1) * part_rows_, s_.batch * pixels_);
      if (feed_ == Feed::direct && first + kRows <= last) {
        *steps = {s_.in_channels * 2, 32};
        const uint16_t* const from = w.x + first * s_.in_channels;
        put(from, from + 16 * s_.in_channels, b, depth_.all());
      } else {
        *steps = {64, 2 * kTile};
        const int64_t panel = feed_ == Feed::direct ? 0 : tile / 2 * depth_.all() * 2 * kTile;
        put(w.fed + panel, w.fed + panel + kTile, b, depth_.all());
      }
    }
    return n;
  }

  const uint16_t* image_tile(const Work& w, int64_t tile, int32_t tap) const {
    const int64_t place = tile / groups_, group = tile % groups_;
    const int64_t y = place / s_.out_width() * s_.stride_h - s_.pad_top + tap / s_.kernel_w * s_.dilation_h;
    const int64_t x = place % s_.out_width() * s_.stride_w - s_.pad_left + tap % s_.kernel_w * s_.dilation_w;
    if (y < 0 || y >= s_.height || x < 0 || x >= s_.width) return nullptr;
    return w.fed + ((y * s_.width + x) * depth_.tiles * groups_ + group) * kTile;
  }

  // The last tile of a row reaches back to be whole.
  int64_t tile_column(int64_t tile) const {
    return std::min(tile % over(s_.out_width(), 16) * 16, s_.out_width() - 16);
  }
  const uint16_t* row_tile(const Work& w, int64_t tile) const {
    const int64_t row = tile / over(s_.out_width(), 16) * s_.stride_h;
    return w.fed + (row * band_width_ + tile_column(tile) * s_.stride_w) * s_.in_channels;
  }

  TileRows rows_of(const Work& w, int64_t tile, int64_t column) const {
    const int64_t outs = s_.out_channels;
    int64_t first = 0, stride = outs, rows = 16;
    if (feed_ == Feed::images) {
      const int64_t n = w.part * kRows + tile % groups_ * 16;
      first = n * pixels_ + tile / groups_;
      stride = pixels_ * outs;
      rows = std::min<int64_t>(16, s_.batch - n);
    } else if (feed_ == Feed::rows) {
      const int64_t row = w.part % bands_ * band_rows_ + tile / over(s_.out_width(), 16);
      first = w.part / bands_ * pixels_ + row * s_.out_width() + tile_column(tile);
    } else {
      first = w.part * part_rows_ + tile * 16;
      rows = std::min<int64_t>(16, s_.batch * pixels_ - first);
    }
    const int64_t at = first * outs + column;
    return {w.y + at, w.residual == nullptr ? nullptr : w.residual + at, stride, int32_t(rows)};
  }

  void run_strip(const Work& w, int64_t strip) const {
    static thread_local std::vector<TileRun> memory;
    if (memory.size() < size_t(depth_.all())) memory.resize(size_t(depth_.all()));
    TileRun* const runs = memory.data();
    const int32_t column = int32_t(strip) * kStrip,
                  columns = int32_t(std::min<int64_t>(kStrip, s_.out_channels - column));
    const bool once = weights_.is_signed() && w.row_tiles <= 2 && (feed_ == Feed::direct || feed_ == Feed::panel);
    const uint16_t* b = w.strip;
    if (!weights_.is_signed()) {
      b = weights_.values(strip);
    } else if (!once) {
      for (int32_t i = 0; i < depth_.all() * 2; ++i) expand_tile(weights_.bits(strip)[i], w.strip + int64_t(i) * kTile);
    }
    for (int64_t tile = 0; tile < w.row_tiles; tile += 2) {
      const bool two = tile + 1 < w.row_tiles;
      TileSteps steps;
      const int32_t n = find_runs(w, tile, b, runs, &steps);
      clear(w.sums);
      if (once) {
        multiply_once(runs[0], steps, weights_.bits(strip), two, w);
      } else {
        multiply(runs, n, steps, two, w.sums);
      }
      store(w.sums, two);
      finish(w.sums, rows_of(w, tile, column), finish_, column, columns);
      if (two) finish(w.sums + 512, rows_of(w, tile + 1, column), finish_, column, columns);
    }
  }

  // Weights that are used once are expanded where the next products find them in the first level of cache.
  void multiply_once(const TileRun& run, const TileSteps& steps, const TileBits* bits, bool two, const Work& w) const {
    for (int32_t k = 0; k < run.count; k += kExpanded) {
      const int32_t n = std::min(kExpanded, run.count - k);
      for (int32_t i = 0; i < n * 2; ++i) expand_tile(bits[k * 2 + i], w.strip + int64_t(i) * kTile);
      const TileRun part = {run.first + k * steps.a_step, run.second + k * steps.a_step, w.strip, n};
      multiply(&part, 1, steps, two, w.sums);
    }
  }

  void clear(float* sums) const {
    if (tiles_) return clear_amx();
    std::memset(sums, 0, kSumBytes);
  }
  void multiply(const TileRun* runs, int32_t n, const TileSteps& steps, bool two, float* sums) const {
    if (!tiles_) return add_avx512(runs, n, steps, two ? 32 : 16, sums);
    two ? add_amx(runs, n, steps) : add_single_amx(runs, n, steps);
  }
  void store(float* sums, bool two) const {
    if (!tiles_) return;
    store_amx(sums);
    if (!two) join_sums(sums);
  }

  ConvShape s_;
  Finish finish_;
  TileDepth depth_;
  TileWeights weights_;
  Feed feed_;
  bool tiles_;
  int64_t strips_, pixels_, parts_ = 1, strip_groups_ = 1, fed_bytes_ = 0;
  int64_t part_rows_ = 0;                               // of direct and panel: outputs of a part
  int64_t groups_ = 1;                                  // of images: 16 images each
  int64_t bands_ = 1, band_rows_ = 0, band_width_ = 0;  // of rows
};

}  // namespace

std::unique_ptr<ConvPlan> tile_plan(const ConvShape& shape, const ConvWeights& weights, const Epilogue& epilogue) {
  if (!has_tiles(shape)) return nullptr;
  return std::make_unique<TilePlan>(shape, weights, epilogue);
}

std::optional<ConvIdea> tile_idea(const ConvOutline& outline) {
  const ConvShape& s = outline.shape;
  if (!has_tiles(s)) return std::nullopt;
  // Measured of one core: products of tiles, or of vectors; what is read and written; each tile of weights expanded.
  const bool tiles = hn::matrix_tiles();
  const double products = double(TileDepth(s).all() * 32 * over(s.out_channels, kStrip) * kStrip) *
                          double(s.batch * s.out_height() * s.out_width());
  const double rate = tiles ? 6e11 : 1.2e11, bytes = 2.0 * outline.numbers();
  const double expanded = outline.is_signed ? double(s.weights()) / kTile * 2e-8 : 0.0;
  return ConvIdea{tile_name(outline.is_signed, tiles), Layout::nhwc_bf16, Layout::nhwc_bf16,
                  products / rate + bytes / 1e10 + expanded};
}

#else

std::optional<ConvIdea> tile_idea(const ConvOutline&) { return std::nullopt; }

std::unique_ptr<ConvPlan> tile_plan(const ConvShape&, const ConvWeights&, const Epilogue&) { return nullptr; }

#endif

}  // namespace hiddennet::runtime
