// tile_gradient_cpu.cpp: the weight gradient: sums over positions and images of 32 x 32 channels and one tap at a time.
#include "../../base/aligned.h"
#include "../../base/parallel.h"
#include "tile_conv.h"
#include "tile_maps.h"

namespace hn {
namespace cpu {
namespace {

// The sums of a layer, and in how many parts of the pixels they are made, each with sums of its own.
int64_t sums_of(const ConvShape& s) {
  return blocks(s.in_channels, 32) * blocks(s.out_channels, 32) * s.kernel_height * s.kernel_width * kSumElements;
}

int64_t parts_of(const ConvShape& s) { return std::clamp<int64_t>((int64_t(1) << 20) / sums_of(s), 1, 8); }

// Of few channels: tiles of both sides are made of some rows of 32 images at a time, and all blocks and taps go over them
// while they are near.
class NarrowGradient {
 public:
  explicit NarrowGradient(const TileConvParams& p)
      : s_(p.shape),
        dw_(p.dw),
        x_{p.x, s_.batch, s_.in_height * s_.in_width, s_.in_channels},
        dy_{p.dy, s_.batch, s_.out_height * s_.out_width, s_.out_channels},
        taps_(s_.kernel_height * s_.kernel_width),
        needs_(make_links(s_, true), s_.out_height, s_.out_width, s_.in_width),
        x_blocks_(x_.channel_blocks()),
        blocks_(x_blocks_ * dy_.channel_blocks()),
        rows_(size_t(taps_)) {
    const int64_t row = 2 * kTileElements * 2;  // bytes of a position of 32 channels
    step_ = needs_.step(row * (s_.in_width * x_blocks_ + s_.out_width * dy_.channel_blocks()) / 2);
    ring_ = needs_.span(step_);
    for_each_row(s_, [&](int32_t tap, int32_t out, int32_t in, int32_t length) {
      rows_[size_t(tap)].push_back({out / s_.out_width, out % s_.out_width, in, length});
    });
  }

  void run() const {
    // parts of the pixels with sums of their own, added up in their order whatever the threads are
    const int64_t groups = x_.image_blocks(), sums = sums_of(s_), wanted = parts_of(s_);
    const int64_t bands = std::min<int64_t>(blocks(wanted, groups), blocks(s_.out_height, step_));
    const int64_t units = groups * bands, parts = std::min(wanted, units);
    static thread_local Aligned<float> memory;
    float* const all = memory.at_least(parts * sums);
    parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      const TileRegisters registers(matrix_tiles());
      static thread_local Aligned<uint16_t> room;
      uint16_t* const images = room.at_least(x_elements() + dy_elements());
      for (int64_t part = begin; part < end; ++part) {
        bool add = false;
        for (int64_t u = units * part / parts; u < units * (part + 1) / parts; ++u) {
          const int64_t band = u % bands;
          run_band(u / bands * 32, int32_t(s_.out_height * band / bands), int32_t(s_.out_height * (band + 1) / bands),
                   images, all + part * sums, &add);
        }
      }
    });
    parallel_for(0, blocks_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) write(block, all, parts, sums);
    });
  }

 private:
  struct Row {
    int32_t y, column, in, length;
  };

  int64_t x_half() const { return int64_t(ring_) * s_.in_width * kTileElements; }    // one block of 16 channels
  int64_t dy_half() const { return int64_t(step_) * s_.out_width * kTileElements; }  // the same
  int64_t x_elements() const { return x_blocks_ * 2 * x_half(); }
  int64_t dy_elements() const { return int64_t(dy_.channel_blocks()) * 2 * dy_half(); }

  void run_band(int64_t image, int32_t top, int32_t bottom, uint16_t* x, float* sums, bool* add) const {
    uint16_t* const dy = x + x_elements();
    std::vector<TileRun> runs;
    int32_t packed = 0;
    for (int32_t y = top; y < bottom; y += step_) {
      const int32_t n = std::min(step_, bottom - y), last = needs_.last_of(y, n);
      if (last >= 0) packed = std::max(packed, needs_.first_of(y, n));
      for (; packed <= last; ++packed)
        pack_row(x_, image, packed, s_.in_width, packed % ring_, x_half(), pack_pairs, x);
      for (int32_t i = 0; i < n; ++i) pack_row(dy_, image, y + i, s_.out_width, i, dy_half(), pack_turned, dy);
      for (int64_t block = 0; block < blocks_; ++block) {
        const uint16_t* const a = dy + block / x_blocks_ * 2 * dy_half();
        const uint16_t* const b = x + block % x_blocks_ * 2 * x_half();
        for (int32_t tap = 0; tap < taps_; ++tap) {
          runs.clear();
          for (const Row& row : rows_[size_t(tap)]) {
            if (row.y < y || row.y >= y + n) continue;
            const int64_t in = int64_t(row.in / s_.in_width % ring_) * s_.in_width + row.in % s_.in_width;
            runs.push_back({a + (int64_t(row.y - y) * s_.out_width + row.column) * kTileElements,
                            b + in * kTileElements, row.length});
          }
          const TileProduct product{kTileElements, s_.stride_width * int64_t(kTileElements), dy_half(), x_half()};
          multiply(runs.data(), int32_t(runs.size()), product, *add, sums + (block * taps_ + tap) * kSumElements);
        }
      }
      *add = true;
    }
  }

  // Tiles of one row of 32 images: [channel blocks][2][rows][width].
  template <class Pack>
  static void pack_row(const Maps& m, int64_t image, int32_t row, int32_t width, int32_t at, int64_t half,
                       const Pack& pack, uint16_t* out) {
    for (int32_t column = 0; column < width; ++column) {
      uint16_t* to = out + (int64_t(at) * width + column) * kTileElements;
      for (int64_t c = 0; c < m.channel_blocks(); ++c, to += 2 * half) {
        pack(m.rows(image, int64_t(row) * width + column, c * 32), to, to + half);
      }
    }
  }

  void write(int64_t block, float* all, int64_t parts, int64_t sums) const {
    const int64_t o = block / x_blocks_ * 32, c = block % x_blocks_ * 32;
    const int32_t width = int32_t(std::min<int64_t>(32, s_.in_channels - c));
    for (int32_t tap = 0; tap < taps_; ++tap) {
      float* const sum = all + (block * taps_ + tap) * kSumElements;
      for (int64_t part = 1; part < parts; ++part) {
        const float* const other = sum + part * sums;
        for (int32_t i = 0; i < kSumElements; ++i) sum[i] += other[i];
      }
      for (int64_t i = 0; i < std::min<int64_t>(32, s_.out_channels - o); ++i) {
        const float* const row = sum + i / 16 * 512 + i % 16 * 16;
        float* const to = dw_ + ((o + i) * taps_ + tap) * s_.in_channels + c;
        std::copy(row, row + std::min(width, 16), to);
        if (width > 16) std::copy(row + 256, row + 256 + width - 16, to + 16);
      }
    }
  }

  ConvShape s_;
  float* dw_;
  Maps x_, dy_;
  int32_t taps_;
  RowNeeds needs_;
  int64_t x_blocks_, blocks_;
  std::vector<std::vector<Row>> rows_;  // by tap
  int32_t step_, ring_;
};

// Tiles of 32 images whose columns (B) or rows (A) are 16 channels: [channel blocks][2][image blocks][positions].
template <class Pack>
void pack_channels(const Maps& m, const Pack& pack, uint16_t* out) {
  const int64_t plane = int64_t(m.image_blocks()) * m.positions, depth = m.channel_blocks();
  parallel_for(0, plane, 1, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      for (int64_t c = 0; c < depth; ++c) {
        uint16_t* const to = out + (c * 2 * plane + u) * kTileElements;
        pack(m.rows(u / m.positions * 32, u % m.positions, c * 32), to, to + plane * kTileElements);
      }
    }
  });
}

// A part of the pixels: images of one block and outputs of some rows.
struct Chunk {
  int32_t group, first_row, last_row;
};

// Blocks of images and bands of rows whose tiles stay near while all taps go over them.
std::vector<std::vector<Chunk>> make_chunks(const ConvShape& s, int32_t groups) {
  const int64_t inputs = int64_t(s.in_height) * s.in_width, outputs = int64_t(s.out_height) * s.out_width;
  const int64_t bytes = (inputs + outputs) * 2 * kTileElements * 2;
  std::vector<std::vector<Chunk>> found;
  if (bytes <= kNearBytes) {
    const int32_t together = int32_t(kNearBytes / bytes);
    for (int32_t g = 0; g < groups; ++g) {
      if (g % together == 0) found.emplace_back();
      found.back().push_back({g, 0, s.out_height});
    }
    return found;
  }
  const int32_t bands = int32_t(std::min<int64_t>(s.out_height, blocks(bytes, kNearBytes)));
  for (int32_t g = 0; g < groups; ++g) {
    for (int32_t band = 0; band < bands; ++band) {
      found.push_back({{g, s.out_height * band / bands, s.out_height * (band + 1) / bands}});
    }
  }
  return found;
}

// Of many channels: both sides become tiles as a whole, then each block has all its pixels at once.
void wide_gradient(const TileConvParams& p) {
  const ConvShape& s = p.shape;
  const Maps x{p.x, s.batch, s.in_height * s.in_width, s.in_channels};
  const Maps dy{p.dy, s.batch, s.out_height * s.out_width, s.out_channels};
  const int64_t groups = x.image_blocks(), x_plane = groups * x.positions, dy_plane = groups * dy.positions;
  static thread_local Aligned<uint16_t> left, right;  // of the calling thread
  uint16_t* const inputs = left.at_least(x.channel_blocks() * 2 * x_plane * kTileElements);
  uint16_t* const gradients = right.at_least(dy.channel_blocks() * 2 * dy_plane * kTileElements);
  pack_channels(x, pack_pairs, inputs);
  pack_channels(dy, pack_turned, gradients);

  // rows of outputs by tap
  struct Row {
    int32_t y, out, in, length;
  };
  const int32_t taps = s.kernel_height * s.kernel_width;
  std::vector<std::vector<Row>> rows(static_cast<size_t>(taps));
  for_each_row(s, [&](int32_t tap, int32_t out, int32_t in, int32_t length) {
    rows[size_t(tap)].push_back({out / s.out_width, out, in, length});
  });
  const auto chunks = make_chunks(s, int32_t(groups));
  const TileProduct product{kTileElements, s.stride_width * int64_t(kTileElements), dy_plane * kTileElements,
                            x_plane * kTileElements};
  const int64_t x_blocks = x.channel_blocks(), pairs = x_blocks * dy.channel_blocks();
  // taps are shared out too where there are few channels
  const int64_t parts = pairs >= 32 ? 1 : s.kernel_height, per_part = taps / parts;
  parallel_for(0, pairs * parts, 1, [&](int64_t begin, int64_t end) {
    const TileRegisters registers(matrix_tiles());
    Aligned<float> buffer;
    float* const sums = buffer.at_least(per_part * kSumElements);
    std::vector<TileRun> runs;
    for (int64_t u = begin; u < end; ++u) {
      const int64_t pair = u / parts, first = u % parts * per_part, o = pair / x_blocks * 32, c = pair % x_blocks * 32;
      const uint16_t* const a = gradients + o / 16 * dy_plane * kTileElements;
      const uint16_t* const b = inputs + c / 16 * x_plane * kTileElements;
      for (size_t at = 0; at < chunks.size(); ++at) {
        for (int64_t t = 0; t < per_part; ++t) {
          runs.clear();
          for (const Chunk& chunk : chunks[at]) {
            for (const Row& row : rows[size_t(first + t)]) {
              if (row.y < chunk.first_row || row.y >= chunk.last_row) continue;
              runs.push_back({a + (int64_t(chunk.group) * dy.positions + row.out) * kTileElements,
                              b + (int64_t(chunk.group) * x.positions + row.in) * kTileElements, row.length});
            }
          }
          multiply(runs.data(), int32_t(runs.size()), product, at > 0, sums + t * kSumElements);
        }
      }
      const int32_t width = int32_t(std::min<int64_t>(32, s.in_channels - c));
      for (int64_t i = 0; i < std::min<int64_t>(32, s.out_channels - o); ++i) {
        for (int64_t t = 0; t < per_part; ++t) {
          const float* const row = sums + t * kSumElements + i / 16 * 512 + i % 16 * 16;
          float* const to = p.dw + ((o + i) * taps + first + t) * s.in_channels + c;
          std::copy(row, row + std::min(width, 16), to);
          if (width > 16) std::copy(row + 256, row + 256 + width - 16, to + 16);
        }
      }
    }
  });
}

}  // namespace

void tile_conv_weight_gradient(const TileConvParams& p) {
  if (parts_of(p.shape) > 1) return NarrowGradient(p).run();
  wide_gradient(p);
}

}  // namespace cpu
}  // namespace hn
